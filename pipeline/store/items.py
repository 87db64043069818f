"""One video of an archive as a job plans it, and its Arrow columns."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from pipeline.names import as_bytes, as_text, from_bytes

ITEM_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),  # as text
        pa.field("uri_bytes", pa.binary()),  # of one that is not UTF-8
        pa.field("etag", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("questions", pa.list_(pa.string()), nullable=False),
        pa.field("ground", pa.list_(pa.string()), nullable=False),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("extra", pa.map_(pa.string(), pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """A video to analyse, and what to ask of this one beyond what the job asks of all.

    uri: an absolute path or s3://bucket/key, verbatim, as pipeline.names has it. etag, size_bytes:
    as listed, None in a manifest that did not say. ground: things to find. start_s, end_s: the
    range, None is open. extra: a manifest's other columns; they ride along and change nothing.
    """

    uri: str
    etag: str | None = None
    size_bytes: int | None = None
    questions: tuple[str, ...] = ()
    ground: tuple[str, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.uri or "\0" in self.uri or not _is_a_name(self.uri):
            raise ValueError(f"{self.uri!r} is no uri")
        start_s, end_s = self.start_s or 0.0, math.inf if self.end_s is None else self.end_s
        if not 0.0 <= start_s < end_s:  # false for NaN too
            raise ValueError(f"a range needs 0 <= start_s < end_s, got {start_s} and {end_s}")

    @cached_property
    def video_id(self) -> str:
        """Twenty hex digits: same place, range and questions, same id, in every job."""
        parts = [self.uri, self.start_s, self.end_s, self.questions, self.ground]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]

    @property
    def uri_bytes(self) -> bytes | None:
        """The uri, where it is not UTF-8 and no column of texts can hold it."""
        return None if as_text(self.uri) == self.uri else as_bytes(self.uri)


def items_to_table(items: Iterable[Item]) -> pa.Table:
    """Items as rows of ITEM_SCHEMA, in the same order."""
    columns: dict[str, list[object]] = {name: [] for name in ITEM_SCHEMA.names}
    for item in items:
        for name, column in columns.items():
            column.append(as_text(item.uri) if name == "uri" else getattr(item, name))
    return pa.table(columns, schema=ITEM_SCHEMA)


def table_to_items(table: pa.Table) -> Iterator[Item]:
    """The items of an ITEM_SCHEMA table, in row order; of one with fewer columns, too."""
    for row in table.drop_columns(["video_id"]).to_pylist(maps_as_pydicts="strict"):
        questions, ground = tuple(row.pop("questions")), tuple(row.pop("ground"))
        if (uri_bytes := row.pop("uri_bytes", None)) is not None:
            row["uri"] = from_bytes(uri_bytes)
        yield Item(questions=questions, ground=ground, **row)


def _is_a_name(uri: str) -> bool:
    try:
        as_bytes(uri)
    except UnicodeEncodeError:
        return False
    return True
