"""Verify a job's output against its plan; put damage aside, clear away what torn puts left."""

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import StoreCorrupt, StoreError
from pipeline.store.commit import (
    MAX_PART_BYTES,
    PART_PREFIX,
    SUCCESS_KEY,
    TABLE_PREFIX,
    PartEntry,
    check_part,
    load_success,
    part_index,
    part_key,
)
from pipeline.store.job_plan import SHARD_PREFIX, JobPlan, PlannedItems, load_plan, read_shard
from pipeline.store.local import TEMP_SUFFIX
from pipeline.store.objects import ObjectInfo, ObjectStore, find
from pipeline.store.part_claims import CLAIM_PREFIX
from pipeline.store.rows import RESULTS, inner_codes

DAY_S = 86_400.0
ASIDE_PREFIX = "damaged/"
_OLD_PROBE = "probe"  # what vidray 0.1.0 left in every output


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as planned."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckReport:
    """What fsck found. problems: committed data that is wrong; missing: parts still to be made."""

    job_id: str
    num_planned: int  # rows, in num_parts parts
    num_parts: int
    num_rows: int  # in sound parts
    num_failed: int  # of these, and of the results in them
    missing: tuple[int, ...]
    problems: tuple[Problem, ...]
    orphans: tuple[ObjectInfo, ...]  # no part of the plan
    deleted: tuple[str, ...]  # orphans that were old enough, if cleaning was asked for
    moved: Mapping[str, str]  # what was put aside, and where, if repairing was asked for
    is_finished: bool  # the success marker is there
    is_plan_damaged: bool  # nothing can be mended: what belongs into a part is not known any more

    @property
    def is_sound(self) -> bool:
        """Nothing is wrong, though parts may be missing."""
        return not self.problems


def fsck(
    store: ObjectStore,
    *,
    now_s: float,
    clean: bool = False,
    repair: bool = False,
    ttl_s: float = DAY_S,
) -> FsckReport:
    """Read every planned part and compare it with the plan; one part in memory at a time.

    now_s: Unix time. clean: delete orphans older than ttl_s, which must exceed the longest
    submission; a younger one may belong to a driver at work. Parts of the plan are never deleted.
    repair: move what is wrong below damaged/, so that running the job makes it again.
    """
    plan = load_plan(store)
    if plan is None:
        raise StoreError(f"{store.uri} holds no job")
    lost = list(_check_shards(store, plan))
    problems = [*lost]
    finished = _check_success(store, plan, problems)
    committed, orphans = _sort_keys(store, plan)
    num_rows = num_failed = 0
    unfinished: set[int] = set()  # some of their pieces are there
    if not lost:
        digests = {entry.key: entry.sha256 for entry in finished or ()}
        items = PlannedItems(store, plan)
        for index in sorted(committed):
            try:
                rows = _check_one(store, plan, items, index, digests)
            except StoreCorrupt as error:
                problems.append(Problem(key=part_key(index), reason=str(error)))
            else:
                num_rows += rows.num_rows
                num_failed += _num_failed(rows)
                if rows.num_rows < plan.num_rows(index):
                    unfinished.add(index)
    present = committed - unfinished
    missing = tuple(index for index in range(plan.num_parts) if index not in present)
    if finished is not None:
        problems += [Problem(key=part_key(i), reason="finished, then lost") for i in missing]
    return FsckReport(
        job_id=plan.job_id,
        num_planned=plan.num_items,
        num_parts=plan.num_parts,
        num_rows=num_rows,
        num_failed=num_failed,
        missing=missing,
        problems=tuple(problems),
        orphans=tuple(orphans),
        deleted=tuple(_delete_older(store, orphans, now_s - ttl_s)) if clean else (),
        moved=dict(_put_aside(store, problems)) if repair and not lost else {},
        is_plan_damaged=bool(lost),
        is_finished=finished is not None,
    )


def _sort_keys(store: ObjectStore, plan: JobPlan) -> tuple[set[int], list[ObjectInfo]]:
    """Indices of committed parts, and orphans. Whatever else lies in the folder is not ours."""
    shard_keys = {shard.key for shard in plan.shards}
    committed: set[int] = set()
    orphans: list[ObjectInfo] = []
    for info in store.scan():
        index = part_index(info.key)
        if index is not None and index < plan.num_parts:
            committed.add(index)
        elif info.key not in shard_keys and _is_ours(info.key):
            orphans.append(info)
    return committed, orphans


def _is_ours(key: str) -> bool:
    folder, _, name = key.rpartition("/")
    is_torn_put = name.startswith(".") and name.endswith(TEMP_SUFFIX)
    is_torn_put &= not folder or key.startswith(CLAIM_PREFIX)
    return is_torn_put or key == _OLD_PROBE or key.startswith((PART_PREFIX, SHARD_PREFIX))


def _check_shards(store: ObjectStore, plan: JobPlan) -> Iterator[Problem]:
    for shard in plan.shards:
        try:
            read_shard(store, shard)
        except StoreCorrupt as error:
            yield Problem(key=shard.key, reason=str(error))


def _check_success(
    store: ObjectStore, plan: JobPlan, problems: list[Problem]
) -> tuple[PartEntry, ...] | None:
    """The parts that the success marker names, None without one; adds what is wrong with it."""
    try:
        finished = load_success(store)
    except StoreCorrupt as error:
        problems.append(Problem(key=SUCCESS_KEY, reason=str(error)))
        return None
    named = {part_index(entry.key) for entry in finished or ()}
    if finished is not None and len(named) != plan.num_parts:
        reason = f"it names {len(named)} of {plan.num_parts} parts"
        problems.append(Problem(key=SUCCESS_KEY, reason=reason))
    return finished


def _check_one(
    store: ObjectStore, plan: JobPlan, items: PlannedItems, index: int, digests: Mapping[str, str]
) -> pa.Table:
    """The rows of a committed part, in one object or several; StoreCorrupt says what is wrong."""
    video_ids = tuple(item.video_id for item in items.part(index))
    pieces: list[pa.Table] = []
    num_rows = 0
    while num_rows < len(video_ids):
        key = part_key(index, len(pieces))
        data = find(store, key, max_bytes=MAX_PART_BYTES)
        if data is None and not pieces:
            raise StoreCorrupt("it was listed and is gone")
        if data is None:
            break
        rows = check_part(
            data, job_id=plan.job_id, index=index, video_ids=video_ids, first=num_rows
        )
        if digests.get(key, digest := hashlib.sha256(data).hexdigest()) != digest:
            raise StoreCorrupt("the bytes differ from those the success marker names")
        num_rows += rows.num_rows
        pieces.append(rows)
    return pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces)


def _num_failed(rows: pa.Table) -> int:
    """Videos, captions, answers and boxes."""
    codes = rows["code"] if "code" in rows.column_names else None
    num_videos = 0 if codes is None else rows.num_rows - codes.null_count
    inner = (inner_codes(rows, name) for name in RESULTS if name in rows.column_names)
    return num_videos + sum(map(len, inner))


def _put_aside(store: ObjectStore, problems: list[Problem]) -> Iterator[tuple[str, str]]:
    """Move damaged parts, what was derived from them, and the marker that vouches for them.

    The marker goes last: whoever is interrupted here calls again, and it tells the same again.
    """
    if not problems:
        return
    damaged = [problem.key for problem in problems if problem.key != SUCCESS_KEY]
    names = {key.removeprefix(PART_PREFIX) for key in damaged}
    derived = [
        info.key for info in store.scan(TABLE_PREFIX) if info.key.rpartition("/")[2] in names
    ]
    for key in [*derived, *damaged, SUCCESS_KEY]:
        if any(info.key == key for info in store.scan(key)):
            aside = f"{ASIDE_PREFIX}{key}.{uuid.uuid4().hex[:8]}"
            store.move(key, aside)
            yield key, aside


def _delete_older(store: ObjectStore, orphans: list[ObjectInfo], before_s: float) -> Iterator[str]:
    for info in orphans:
        if info.modified_s < before_s:
            store.delete(info.key)
            yield info.key
