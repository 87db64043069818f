"""Driving a job: its missing videos become rows, many at a time; a part is committed once whole.

Running it again resumes: whatever a driver that died had not committed is made anew.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Generic, TypeVar

import pyarrow as pa

from pipeline.errors import Stopped
from pipeline.store.commit import Part, Receipt, commit_part, finish, missing_parts
from pipeline.store.items import Item
from pipeline.store.job_plan import Checkpoint, JobPlan, PlannedItems, pass_by
from pipeline.store.objects import ObjectStore
from pipeline.store.retry import RetryPolicy, retry

Row = TypeVar("Row")
COMMIT_POLICY = RetryPolicy(attempts=3)  # beyond the store's own retries


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[Row]):
    """How items become rows.

    make_row: one item's row; what it raises stops the job, a video's own fault is a row. It may
    wait in asyncio.to_thread: there is a thread per item. to_table: rows with a column video_id.
    num_at_once: items being made. committed: hears of each part.
    """

    make_row: Callable[[Item], Awaitable[Row]]
    to_table: Callable[[Sequence[Row]], pa.Table]
    num_at_once: int = 1
    committed: Callable[[Receipt], None] = lambda receipt: None
    commit_policy: RetryPolicy = COMMIT_POLICY


async def drive(
    store: ObjectStore,
    plan: JobPlan,
    work: Work[Row],
    *,
    is_stopping: Callable[[], bool] = lambda: False,
    checkpoint: Checkpoint = pass_by,
) -> list[Receipt]:
    """Make every missing part, then the success marker; receipts in the order of the commits.

    The first error stops everything that is under way and is raised; committed parts stay.
    is_stopping: asked before each part; once it is so, those under way are the last, and Stopped is
    raised if others are missing.
    """
    # The loop's own few threads may all wait for copies while finished parts wait for a thread.
    threads = ThreadPoolExecutor(work.num_at_once, thread_name_prefix="item")
    asyncio.get_running_loop().set_default_executor(threads)
    missing = await asyncio.to_thread(missing_parts, store, plan, checkpoint=checkpoint)
    begun = takewhile(lambda index: not is_stopping(), missing)
    receipts = await make_parts(store, plan, begun, work, checkpoint=checkpoint)
    if len(receipts) < len(missing):
        raise Stopped(f"{len(missing) - len(receipts)} of {plan.num_parts} parts are missing")
    sha256s = {receipt.index: receipt.sha256 for receipt in receipts}
    await asyncio.to_thread(finish, store, plan, sha256s=sha256s, checkpoint=checkpoint)
    return receipts


async def make_parts(
    store: ObjectStore,
    plan: JobPlan,
    indices: Iterable[int],
    work: Work[Row],
    *,
    checkpoint: Checkpoint = pass_by,
) -> list[Receipt]:
    """Make and commit these parts, their items in order; parts overlap, so none waits for one."""
    stream: Iterator[tuple[_OpenPart[Row], Item]] = _items(
        PlannedItems(store, plan), indices, plan.job_id
    )
    turn = asyncio.Lock()
    receipts: list[Receipt] = []

    async def worker() -> None:
        while True:
            async with turn:  # taking an item may read a shard of the plan
                taken = await asyncio.to_thread(next, stream, None)
            if taken is None:
                return
            open_part, item = taken
            open_part.rows.append(await work.make_row(item))
            if open_part.is_whole:
                receipts.append(await asyncio.to_thread(commit, open_part))
                work.committed(receipts[-1])

    def commit(open_part: _OpenPart[Row]) -> Receipt:
        rows = work.to_table(open_part.rows)
        return retry(
            lambda: commit_part(store, open_part.part, rows, checkpoint=checkpoint),
            work.commit_policy,
        )

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(work.num_at_once):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return receipts


@dataclass(frozen=True, slots=True)
class _OpenPart(Generic[Row]):
    """A part being made."""

    part: Part
    rows: list[Row] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return len(self.rows) == len(self.part.video_ids)


def _items(
    planned: PlannedItems, indices: Iterable[int], job_id: str
) -> Iterator[tuple[_OpenPart[Row], Item]]:
    """Every item of these parts, with the part it belongs to; one part is read at a time."""
    for index in indices:
        items = planned.part(index)
        part = Part(
            job_id=job_id,
            index=index,
            video_ids=tuple(item.video_id for item in items),
            attempt=uuid.uuid4().hex,
        )
        open_part: _OpenPart[Row] = _OpenPart(part)
        for item in items:
            yield open_part, item
