"""Verify a job's output against its plan, and clear away what interrupted puts left behind."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import StoreCorrupt, StoreError
from pipeline.store.commit import (
    MAX_PART_BYTES,
    PART_PREFIX,
    check_part,
    load_success,
    part_index,
    part_key,
)
from pipeline.store.job_plan import SHARD_PREFIX, JobPlan, PlannedItems, load_plan, read_shard
from pipeline.store.local import TEMP_SUFFIX
from pipeline.store.objects import ObjectInfo, ObjectStore, find

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as planned."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckReport:
    """What fsck found. problems: committed data that is wrong; missing: parts still to be made."""

    job_id: str
    num_rows: int  # in sound parts
    missing: tuple[int, ...]
    problems: tuple[Problem, ...]
    orphans: tuple[ObjectInfo, ...]  # no part of the plan
    deleted: tuple[str, ...]  # orphans that were old enough, if cleaning was asked for
    is_finished: bool  # the success marker is there

    @property
    def is_sound(self) -> bool:
        """Nothing is wrong, though parts may be missing."""
        return not self.problems


def fsck(
    store: ObjectStore, *, now_s: float, clean: bool = False, ttl_s: float = DAY_S
) -> FsckReport:
    """Read every planned part and compare it with the plan; one part in memory at a time.

    now_s: Unix time. clean: delete orphans older than ttl_s, which must exceed the longest
    submission; a younger one may belong to a driver at work. Parts of the plan are never deleted.
    """
    plan = load_plan(store)
    if plan is None:
        raise StoreError(f"{store.uri} holds no job")
    finished = load_success(store)
    committed, orphans = _sort_keys(store, plan)
    problems = list(_check_shards(store, plan))
    num_rows = 0
    if not problems:
        digests = {entry.key: entry.sha256 for entry in finished or ()}
        items = PlannedItems(store, plan)
        for index in sorted(committed):
            reason = _check_one(store, plan, items, index, digests.get(part_key(index)))
            if reason is None:
                num_rows += plan.num_rows(index)
            else:
                problems.append(Problem(key=part_key(index), reason=reason))
    missing = tuple(index for index in range(plan.num_parts) if index not in committed)
    if finished is not None:
        problems += [Problem(key=part_key(i), reason="finished, then lost") for i in missing]
    return FsckReport(
        job_id=plan.job_id,
        num_rows=num_rows,
        missing=missing,
        problems=tuple(problems),
        orphans=tuple(orphans),
        deleted=tuple(_delete_older(store, orphans, now_s - ttl_s)) if clean else (),
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
    is_torn_put = "/" not in key and key.startswith(".") and key.endswith(TEMP_SUFFIX)
    return is_torn_put or key.startswith((PART_PREFIX, SHARD_PREFIX))


def _check_shards(store: ObjectStore, plan: JobPlan) -> Iterator[Problem]:
    for shard in plan.shards:
        try:
            read_shard(store, shard)
        except StoreCorrupt as error:
            yield Problem(key=shard.key, reason=str(error))


def _check_one(
    store: ObjectStore, plan: JobPlan, items: PlannedItems, index: int, sha256: str | None
) -> str | None:
    """What is wrong with a committed part, None if nothing is."""
    video_ids = tuple(item.video_id for item in items.part(index))
    try:
        data = find(store, part_key(index), max_bytes=MAX_PART_BYTES)
        if data is None:
            return "it was listed and is gone"
        check_part(data, job_id=plan.job_id, index=index, video_ids=video_ids)
    except StoreCorrupt as error:
        return str(error)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        return "the bytes differ from those the success marker names"
    return None


def _delete_older(store: ObjectStore, orphans: list[ObjectInfo], before_s: float) -> Iterator[str]:
    for info in orphans:
        if info.modified_s < before_s:
            store.delete(info.key)
            yield info.key
