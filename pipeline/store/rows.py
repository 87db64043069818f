"""Reading a job's committed rows, whoever made them and whether or not it is finished."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from pipeline.errors import BadInput, StoreCorrupt
from pipeline.store.commit import MAX_PART_BYTES, PART_PREFIX, part_index, part_key
from pipeline.store.objects import ObjectInfo, ObjectStore, find
from pipeline.store.parquet import read_table
from pipeline.store.ranged import RangedFile

PARTS_AT_ONCE = 8  # being looked at; each waits for its store


@dataclass(slots=True)
class RowCounts:
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


def count_rows(store: ObjectStore) -> RowCounts:
    """Count rows and failures, by the footer and one column of each part, several at a time."""
    result = RowCounts()
    parts = (info for info in store.scan(PART_PREFIX) if part_index(info.key) is not None)
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        for codes in pool.map(partial(_codes, store), parts):
            result.num_parts += 1
            result.num_rows += len(codes)
            result.codes.update(code for code in codes if code is not None)
    return result


def _codes(store: ObjectStore, info: ObjectInfo) -> list[str | None]:
    """Of a part's rows, in order; None is a good one's."""
    try:
        codes: list[str | None] = read_table(RangedFile(store, info), ["code"])["code"].to_pylist()
    except ValueError as error:
        raise StoreCorrupt(f"{store.uri}: {info.key} is {error}") from error
    except BadInput as error:
        raise StoreCorrupt(f"{store.uri}: {info.key} was listed, and now {error.detail}") from error
    return codes
