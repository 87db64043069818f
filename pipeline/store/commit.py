"""Committing a job's rows: each part whole by one create-only put, then the success marker.

Covered: a driver that dies anywhere; two drivers on one job; a put whose answer was lost (the
    attempt id in the Parquet footer tells whose it is); readers at any moment (a plain glob over
    parts/*.parquet sees whole parts only).
Not covered: whoever deletes or rewrites parts by hand; fsck finds that.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import MIB
from pipeline.errors import StoreCorrupt, StoreError, Transient
from pipeline.store.job_plan import Checkpoint, CommitPoint, JobPlan, pass_by
from pipeline.store.objects import ObjectStore, find
from pipeline.store.parquet import read_table, to_bytes

PART_PREFIX = "parts/"
SUCCESS_KEY = "_SUCCESS.json"
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
    sha256: str  # of the object there


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEntry:
    """A part as the success marker lists it."""

    key: str
    etag: str
    size_bytes: int
    num_rows: int
    sha256: str


def part_key(index: int) -> str:
    return f"{PART_PREFIX}part-{index:05d}.parquet"


def part_index(key: str) -> int | None:
    """The index in a part's key, None for any other key."""
    found = re.fullmatch(rf"{PART_PREFIX}part-(\d{{5,9}})\.parquet", key)
    return int(found[1]) if found and part_key(int(found[1])) == key else None


def missing_parts(
    store: ObjectStore, plan: JobPlan, *, checkpoint: Checkpoint = pass_by
) -> list[int]:
    """Parts still to be made, in order: all that resuming needs to know."""
    is_missing = np.ones(plan.num_parts, dtype=np.bool_)
    for info in store.scan(PART_PREFIX):
        index = part_index(info.key)
        if index is not None and index < plan.num_parts:
            is_missing[index] = False
    checkpoint(CommitPoint.PARTS_LISTED)
    return [int(index) for index in np.flatnonzero(is_missing)]


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
    data = build_part(part, rows)
    if len(data) > max_bytes:
        raise StoreError(f"{part.key} is {len(data)} bytes; limit {max_bytes}: plan smaller parts")
    checkpoint(CommitPoint.PART_BUILT)
    _check(data, part)
    checkpoint(CommitPoint.PART_CHECKED)
    is_new = store.put_new(part.key, data)
    checkpoint(CommitPoint.PART_WRITTEN)
    if not is_new:
        data = _read(store, part.key)
    attempt = part.attempt if is_new else _check(data, part)
    checkpoint(CommitPoint.PART_DONE)
    sha256 = hashlib.sha256(data).hexdigest()
    return Receipt(index=part.index, is_mine=attempt == part.attempt, sha256=sha256)


def _check(data: bytes, part: Part) -> str:
    """Whose attempt a sound part is; StoreCorrupt if it is none."""
    table = check_part(data, job_id=part.job_id, index=part.index, video_ids=part.video_ids)
    return str(table.schema.metadata.get(b"vidray.attempt", b""), "utf-8", "replace")


def build_part(part: Part, rows: pa.Table) -> bytes:
    """The part as Parquet bytes: rows in plan order, and in the footer whose they are."""
    order = pc.index_in(pa.array(part.video_ids, pa.string()), value_set=rows["video_id"])
    if order.null_count or rows.num_rows != len(part.video_ids):
        raise ValueError(
            f"{part.key}: {rows.num_rows} rows for {len(part.video_ids)} videos, "
            f"{order.null_count} of them without a row"
        )
    marks = {
        "vidray.job_id": part.job_id,
        "vidray.part": str(part.index),
        "vidray.attempt": part.attempt,
    }
    metadata = {**(rows.schema.metadata or {}), **marks}
    return to_bytes(rows.take(order).replace_schema_metadata(metadata))


def check_part(data: bytes, *, job_id: str, index: int, video_ids: tuple[str, ...]) -> pa.Table:
    """Open Parquet bytes again and compare with the plan; StoreCorrupt says what is wrong."""
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
    if "video_id" not in table.column_names:
        raise StoreCorrupt(f"{key} has no column video_id")
    if table["video_id"].to_pylist() != list(video_ids):
        raise StoreCorrupt(f"{key} does not hold one row per planned video, in order")
    return table


def finish(
    store: ObjectStore,
    plan: JobPlan,
    *,
    sha256s: Mapping[int, str],
    checkpoint: Checkpoint = pass_by,
) -> tuple[PartEntry, ...]:
    """Write the success marker once every planned part is there; StoreError before that.

    sha256s: digests from this driver's receipts; other parts are read once to learn theirs.
    """
    entries: dict[int, PartEntry] = {}
    for info in store.scan(PART_PREFIX):
        index = part_index(info.key)
        if index is not None and index < plan.num_parts:
            entries[index] = PartEntry(
                key=info.key,
                etag=info.etag,
                size_bytes=info.size_bytes,
                num_rows=plan.num_rows(index),
                sha256=sha256s.get(index) or _sha256(store, info.key),
            )
    if len(entries) < plan.num_parts:
        raise StoreError(f"{plan.num_parts - len(entries)} of {plan.num_parts} parts are missing")
    parts = tuple(entries[index] for index in range(plan.num_parts))
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


def _sha256(store: ObjectStore, key: str) -> str:
    return hashlib.sha256(_read(store, key)).hexdigest()


def _read(store: ObjectStore, key: str) -> bytes:
    """A part that was just seen; Transient if it is gone now."""
    data = find(store, key, max_bytes=MAX_PART_BYTES)
    if data is None:
        raise Transient(f"{store.uri}: {key} was there and is gone")
    return data
