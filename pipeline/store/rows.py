"""Reading a job's committed rows, whoever made them and whether or not it is finished."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.errors import StoreCorrupt
from pipeline.store.commit import MAX_PART_BYTES, PART_PREFIX, part_index, part_key
from pipeline.store.objects import ObjectStore, find
from pipeline.store.parquet import read_table


@dataclass(slots=True)
class Tally:
    """What committed rows say. codes: how many videos failed with each code."""

    num_parts: int = 0
    num_rows: int = 0
    codes: Counter[str] = field(default_factory=Counter)

    @property
    def num_failed(self) -> int:
        return self.codes.total()


def committed_parts(store: ObjectStore) -> list[int]:
    """Indices of all parts in the store, in order."""
    found = (part_index(info.key) for info in store.scan(PART_PREFIX))
    return sorted(index for index in found if index is not None)


def read_part(store: ObjectStore, index: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one committed part; StoreCorrupt if they cannot be read."""
    key = part_key(index)
    data = find(store, key, max_bytes=MAX_PART_BYTES)
    if data is None:
        raise StoreCorrupt(f"{store.uri}: {key} was listed and is gone")
    try:
        return read_table(data, columns)
    except ValueError as error:
        raise StoreCorrupt(f"{store.uri}: {key} is {error}") from error


def read_rows(store: ObjectStore, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Every committed part's rows, in order, one part in memory at a time."""
    for index in committed_parts(store):
        yield read_part(store, index, columns)


def tally(store: ObjectStore) -> Tally:
    """Count rows and failures; reads every part."""
    result = Tally()
    for table in read_rows(store, ["video_id", "code"]):
        result.num_parts += 1
        result.num_rows += table.num_rows
        result.codes.update(code for code in table["code"].to_pylist() if code is not None)
    return result
