"""Committing a job's rows: each part whole by one create-only put, then the success marker.

Covered: a driver that dies anywhere; two drivers on one job; a put whose answer was lost (the
    attempt id in the Parquet footer tells whose it is); readers at any moment (a plain glob over
    parts/*.parquet sees whole parts only); rows that do not fit into one put (the part is cut into
    pieces, each a put of its own that says which rows it holds; whoever comes second goes on behind
    the piece that it finds).
Not covered: whoever deletes or rewrites parts by hand; fsck finds that.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import MIB
from pipeline.errors import StoreCorrupt, StoreError, Transient
from pipeline.store.job_plan import Checkpoint, CommitPoint, JobPlan, pass_by
from pipeline.store.objects import ObjectStore, exists, find
from pipeline.store.parquet import read_table, to_bytes

PART_PREFIX = "parts/"
SPLIT_PREFIX = "splits/"  # which parts may be in pieces; written before a part's first piece
SUCCESS_KEY = "_SUCCESS.json"
TABLE_PREFIX = "tables/"  # what is derived from parts, under their names
READERS = 8  # of parts that other drivers made, at the end of a job
READ_BETWEEN_LOOKS = 64
MAX_PART_BYTES = 64 * MIB  # one single-part put: conditional multipart uploads are not atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part as planned: whose rows it holds. attempt: unique to one computation of it."""

    job_id: str
    index: int
    video_ids: tuple[str, ...]
    attempt: str

    @property
    def key(self) -> str:
        return part_key(self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A part that is in the store for good. is_mine: this attempt's rows, not a faster one's."""

    index: int
    is_mine: bool
    sha256: str | None  # of the object there; None where there are several


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEntry:
    """A part as the success marker lists it."""

    key: str
    etag: str
    size_bytes: int
    num_rows: int
    sha256: str


def part_key(index: int, piece: int = 0) -> str:
    """Of a part, or of the first piece of one; of later pieces."""
    more = f"_{piece:03d}" if piece else ""
    return f"{PART_PREFIX}part-{index:05d}{more}.parquet"


def piece_of(key: str) -> tuple[int, int] | None:
    """Part and piece in a key, None for any other key."""
    found = re.fullmatch(rf"{PART_PREFIX}part-(\d{{5,9}})(?:_(\d{{3}}))?\.parquet", key)
    named = (int(found[1]), int(found[2] or 0)) if found else None
    return named if named and part_key(*named) == key else None


def part_index(key: str) -> int | None:
    """The index in the key of a part, or of a piece of one; None for any other key."""
    named = piece_of(key)
    return named[0] if named else None


def missing_parts(
    store: ObjectStore, plan: JobPlan, *, checkpoint: Checkpoint = pass_by
) -> list[int]:
    """Parts still to be made, in order: all that resuming needs to know."""
    is_missing = np.ones(plan.num_parts, dtype=np.bool_)
    for info in store.scan(PART_PREFIX):
        index = part_index(info.key)
        if index is not None and index < plan.num_parts:
            is_missing[index] = False
    for index in split_parts(store):
        if index < plan.num_parts and not is_missing[index]:
            rows = sum(table.num_rows for table in read_pieces(store, index, ["video_id"]))
            is_missing[index] = rows < plan.num_rows(index)
    checkpoint(CommitPoint.PARTS_LISTED)
    return [int(index) for index in np.flatnonzero(is_missing)]


def read_pieces(
    store: ObjectStore, index: int, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of a part, piece by piece: mostly one. StoreCorrupt if they cannot be read."""
    for piece in itertools.count():
        key = part_key(index, piece)
        data = find(store, key, max_bytes=MAX_PART_BYTES)
        if data is None:
            return
        try:
            table = read_table(data, columns)
        except ValueError as error:
            raise StoreCorrupt(f"{store.uri}: {key} is {error}") from error
        yield table
        if not _num_left(table):
            return


def committed_indices(store: ObjectStore) -> set[int]:
    """Of parts that are there; of one in pieces maybe not all of it."""
    named = (part_index(info.key) for info in store.scan(PART_PREFIX))
    return {index for index in named if index is not None}


def split_parts(store: ObjectStore) -> list[int]:
    """Parts that may be in pieces."""
    names = (info.key.removeprefix(SPLIT_PREFIX) for info in store.scan(SPLIT_PREFIX))
    return [int(name) for name in names if name.isdecimal()]


def _num_left(table: pa.Table) -> int:
    """How many of its part's rows come in later pieces."""
    left = (table.schema.metadata or {}).get(b"vidray.left", b"0")
    return int(left) if left.isdigit() else 0


def commit_part(
    store: ObjectStore,
    part: Part,
    rows: pa.Table,
    *,
    max_bytes: int = MAX_PART_BYTES,
    checkpoint: Checkpoint = pass_by,
) -> Receipt:
    """Put the part's rows, whole and checked; done too if another attempt was faster.

    rows: any order, a column video_id with each planned id once (ValueError otherwise).
    Idempotent: after Transient, call again with the same part and rows.
    """
    checkpoint(CommitPoint.PART_STARTED)
    rows = in_plan_order(part, rows)
    num_done, is_mine, digests = 0, True, []
    for piece in itertools.count():
        data = _fitting(part, rows, num_done, max_bytes)
        checkpoint(CommitPoint.PART_BUILT)
        table = _check(data, part, num_done)
        if piece == 0 and _num_left(table):
            store.put_new(f"{SPLIT_PREFIX}{part.index}", b"")
        checkpoint(CommitPoint.PART_CHECKED)
        is_new = store.put_new(part_key(part.index, piece), data)
        checkpoint(CommitPoint.PART_WRITTEN)
        if not is_new:
            data = _read(store, part_key(part.index, piece))
            table = _check(data, part, num_done)
        is_mine = is_mine and _attempt(table) == part.attempt
        digests.append(hashlib.sha256(data).hexdigest())
        num_done += table.num_rows
        if num_done == len(part.video_ids):
            break
    checkpoint(CommitPoint.PART_DONE)
    sha256 = digests[0] if len(digests) == 1 else None
    return Receipt(index=part.index, is_mine=is_mine, sha256=sha256)


def _fitting(part: Part, rows: pa.Table, first: int, max_bytes: int) -> bytes:
    """As many rows from `first` on as one put may hold: all, or a half of them, or a quarter."""
    num_rows = rows.num_rows - first
    while True:
        data = build_piece(part, rows, first, num_rows)
        if len(data) <= max_bytes:
            return data
        if num_rows == 1:
            raise StoreError(f"a row of {part.key} is {len(data)} bytes; limit {max_bytes}")
        num_rows = -(-num_rows // 2)


def _check(data: bytes, part: Part, first: int) -> pa.Table:
    """A sound part or piece, whoever made it; StoreCorrupt if it is none."""
    return check_part(
        data, job_id=part.job_id, index=part.index, video_ids=part.video_ids, first=first
    )


def _attempt(table: pa.Table) -> str:
    return str((table.schema.metadata or {}).get(b"vidray.attempt", b""), "utf-8", "replace")


def in_plan_order(part: Part, rows: pa.Table) -> pa.Table:
    """ValueError unless there is one row for each planned video."""
    order = pc.index_in(pa.array(part.video_ids, pa.string()), value_set=rows["video_id"])
    if order.null_count or rows.num_rows != len(part.video_ids):
        raise ValueError(
            f"{part.key}: {rows.num_rows} rows for {len(part.video_ids)} videos, "
            f"{order.null_count} of them without a row"
        )
    return rows.take(order)


def build_part(part: Part, rows: pa.Table) -> bytes:
    """The whole part as Parquet bytes: rows in plan order, and in the footer whose they are."""
    return build_piece(part, in_plan_order(part, rows), 0, len(part.video_ids))


def build_piece(part: Part, rows: pa.Table, first: int, num_rows: int) -> bytes:
    """Some of the part's rows, which are in plan order."""
    marks = {
        "vidray.job_id": part.job_id,
        "vidray.part": str(part.index),
        "vidray.attempt": part.attempt,
        "vidray.left": str(len(part.video_ids) - first - num_rows),
    }
    metadata = {**(rows.schema.metadata or {}), **marks}
    return to_bytes(rows.slice(first, num_rows).replace_schema_metadata(metadata))


def check_part(
    data: bytes, *, job_id: str, index: int, video_ids: tuple[str, ...], first: int = 0
) -> pa.Table:
    """Open Parquet bytes again and compare with the plan; StoreCorrupt says what is wrong.

    first: the place in the part of a piece's first row; a piece says how many rows follow it.
    """
    key, table = part_key(index), _table_of(data, job_id=job_id, index=index)
    if "video_id" not in table.column_names:
        raise StoreCorrupt(f"{key} has no column video_id")
    stop = len(video_ids) - _num_left(table)
    if not first < stop or table["video_id"].to_pylist() != list(video_ids[first:stop]):
        raise StoreCorrupt(f"{key} does not hold one row per planned video, in order")
    return table


def _table_of(data: bytes, *, job_id: str, index: int) -> pa.Table:
    key = part_key(index)
    try:
        table = read_table(data)
    except ValueError as error:
        raise StoreCorrupt(f"{key} is {error}") from error
    metadata = table.schema.metadata or {}
    if metadata.get(b"vidray.job_id") != job_id.encode():
        raise StoreCorrupt(f"{key} belongs to another job")
    if metadata.get(b"vidray.part") != str(index).encode():
        raise StoreCorrupt(f"{key} holds another part")
    return table


def finish(
    store: ObjectStore,
    plan: JobPlan,
    *,
    sha256s: Mapping[int, str],
    was_finished: bool = False,
    checkpoint: Checkpoint = pass_by,
) -> tuple[PartEntry, ...]:
    """Write the success marker once every planned part is there; StoreError before that.

    StoreCorrupt names an object that stands where a part belongs, and is none of this job's.
    sha256s: digests from this driver's receipts; other parts are read once to learn theirs, until
    another driver has written the marker. was_finished: the marker is older than this driver, whose
    look at the parts shows whether they still are what was committed.
    """
    if missing := missing_parts(store, plan):
        raise StoreError(f"{len(missing)} of {plan.num_parts} parts are missing")
    split = set(split_parts(store))
    found = {
        named: info
        for info in store.scan(PART_PREFIX)
        if (named := piece_of(info.key)) is not None
        and named[0] < plan.num_parts
        and (not named[1] or named[0] in split)
    }
    strange = [named for named in found if named[0] in split or named[0] not in sha256s]
    counted = _all_counted(store, plan, strange, heeds_marker=not was_finished)
    if counted is None:
        return load_success(store) or ()
    entries: dict[tuple[int, int], PartEntry] = {}
    for named, info in found.items():
        index = named[0]
        num_rows, sha256 = counted.get(named) or (plan.num_rows(index), sha256s[index])
        entries[named] = PartEntry(
            key=info.key,
            etag=info.etag,
            size_bytes=info.size_bytes,
            num_rows=num_rows,
            sha256=sha256,
        )
    parts = tuple(entries[named] for named in sorted(entries))
    content = {
        "job_id": plan.job_id,
        "num_rows": plan.num_items,
        "parts": [asdict(entry) for entry in parts],
    }
    checkpoint(CommitPoint.SUCCESS_READY)
    store.put_new(SUCCESS_KEY, json.dumps(content, sort_keys=True, indent=1).encode())
    checkpoint(CommitPoint.SUCCESS_WRITTEN)
    return parts


def load_success(store: ObjectStore) -> tuple[PartEntry, ...] | None:
    """The finished job's parts; None while it still grows."""
    data = find(store, SUCCESS_KEY, max_bytes=1024 * MIB)
    if data is None:
        return None
    try:
        return tuple(PartEntry(**entry) for entry in json.loads(data)["parts"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"{store.uri}: {SUCCESS_KEY} is no success marker ({error})") from error


def _all_counted(
    store: ObjectStore, plan: JobPlan, named: Sequence[tuple[int, int]], *, heeds_marker: bool
) -> dict[tuple[int, int], tuple[int, str]] | None:
    """Rows and digests of these, read a few at a time; None once the success marker is there.

    Of many drivers that end together, each would read what all others made.
    """
    counted: dict[tuple[int, int], tuple[int, str]] = {}
    with ThreadPoolExecutor(READERS, "count") as readers:
        for first in range(0, len(named), READ_BETWEEN_LOOKS):
            if heeds_marker and exists(store, SUCCESS_KEY):
                return None
            some = named[first : first + READ_BETWEEN_LOOKS]
            counted |= zip(
                some, readers.map(lambda each: _counted(store, plan, *each), some), strict=True
            )
    return counted


def _counted(store: ObjectStore, plan: JobPlan, index: int, piece: int) -> tuple[int, str]:
    """Rows and digest of an object that somebody else put there."""
    data = _read(store, part_key(index, piece))
    try:
        table = _table_of(data, job_id=plan.job_id, index=index)
    except StoreCorrupt as error:
        raise StoreCorrupt(f"{store.uri}: {error}") from error
    return table.num_rows, hashlib.sha256(data).hexdigest()


def _read(store: ObjectStore, key: str) -> bytes:
    """A part that was just seen; Transient if it is gone now."""
    data = find(store, key, max_bytes=MAX_PART_BYTES)
    if data is None:
        raise Transient(f"{store.uri}: {key} was there and is gone")
    return data
