"""Driving a job: its missing videos become rows, many at a time; a part is committed once whole.

Running it again resumes: whatever a driver that died had not committed is made anew.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import pyarrow as pa

from pipeline.about import about
from pipeline.errors import Stopped, Transient
from pipeline.life import end, here
from pipeline.store.commit import (
    Part,
    Receipt,
    commit_part,
    finish,
    missing_parts,
)
from pipeline.store.items import Item
from pipeline.store.job_plan import Checkpoint, JobPlan, PlannedItems, pass_by
from pipeline.store.objects import ObjectStore
from pipeline.store.part_claims import Claims, Order, Wait, rotated
from pipeline.store.retry import RetryPolicy, retry
from pipeline.store.slots import Slots
from pipeline.threads import in_thread

Row = TypeVar("Row")
COMMIT_POLICY = RetryPolicy(attempts=3)  # beyond the store's own retries
LOOK_WHETHER_STOPPING_S = 0.5  # while waiting for other drivers
RENEW_S = 5.0  # between two looks at what one's own claims need


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[Row]):
    """How items become rows.

    make_row: one item's row; what it raises stops the job, a video's own fault is a row.
    to_table: rows with a column video_id. slots: of items being made. order: of the missing parts.
    begun: hears which parts these are; committed: of each part; found: of each that another
    driver made meanwhile. gets_on: whether others should leave it what is under way.
    """

    make_row: Callable[[Item], Awaitable[Row]]
    to_table: Callable[[Sequence[Row]], pa.Table]
    slots: Slots = field(default_factory=Slots)
    order: Order = rotated
    begun: Callable[[Sequence[int]], None] = lambda missing: None
    committed: Callable[[Receipt], None] = lambda receipt: None
    found: Callable[[int], None] = lambda index: None
    gets_on: Callable[[], bool] = lambda: True
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
    missing = await in_thread(missing_parts, store, plan, checkpoint=checkpoint)
    work.begun(missing)
    found: list[int] = []
    name = here()
    claims = Claims(store, plan, missing, name=name, order=work.order, found=found.append)
    planned = PlannedItems(store, plan)
    stream: Iterator[_Taken[Row] | Wait] = _items(planned, claims.taken(), plan.job_id, is_stopping)
    turn = asyncio.Lock()
    receipts: list[Receipt] = []

    async def take() -> _Taken[Row] | None:
        """The next item, and a slot to make it in."""
        async with turn:  # taking an item may claim a part, and read a shard of the plan
            while True:
                await work.slots.take()
                taken = await in_thread(next, stream, None)
                while found:
                    work.found(found.pop())
                if taken is not None and not isinstance(taken, Wait):
                    return taken
                work.slots.leave()
                if taken is None:
                    return None
                await _wait(taken.seconds, is_stopping)

    async def worker() -> None:
        while (taken := await take()) is not None:
            open_part, item = taken
            with about(part=open_part.part.index):
                open_part.rows.append(await work.make_row(item))
                if open_part.is_whole:
                    receipts.append(await in_thread(commit, open_part))
                    claims.made(open_part.part.index)
                    work.committed(receipts[-1])
            work.slots.leave()

    def commit(open_part: _OpenPart[Row]) -> Receipt:
        rows = work.to_table(open_part.rows)
        return retry(
            lambda: commit_part(store, open_part.part, rows, checkpoint=checkpoint),
            work.commit_policy,
        )

    async def renew() -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            if work.gets_on():
                with suppress(Transient):  # it may be lost
                    await in_thread(claims.renew)

    try:
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(worker()) for _ in range(work.slots.max_begun)]
            renewing = group.create_task(renew())
            await asyncio.gather(*workers)
            renewing.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        end(name)
    if claims.num_left:
        raise Stopped(f"{claims.num_left} of {plan.num_parts} parts are missing")
    sha256s = {each.index: each.sha256 for each in receipts if each.sha256 is not None}
    await in_thread(finish, store, plan, sha256s=sha256s, checkpoint=checkpoint)
    return receipts


async def _wait(seconds: float, is_stopping: Callable[[], bool]) -> None:
    while seconds > 0 and not is_stopping():
        await asyncio.sleep(min(seconds, LOOK_WHETHER_STOPPING_S))
        seconds -= LOOK_WHETHER_STOPPING_S


@dataclass(frozen=True, slots=True)
class _OpenPart(Generic[Row]):
    """A part being made."""

    part: Part
    rows: list[Row] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return len(self.rows) == len(self.part.video_ids)


_Taken = tuple[_OpenPart[Row], Item]


def _items(
    planned: PlannedItems,
    indices: Iterator[int | Wait],
    job_id: str,
    is_stopping: Callable[[], bool],
) -> Iterator[_Taken[Row] | Wait]:
    """Every item of these parts, with the part it belongs to; one part is read at a time."""
    while not is_stopping() and (index := next(indices, None)) is not None:
        if isinstance(index, Wait):
            yield index
            continue
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
