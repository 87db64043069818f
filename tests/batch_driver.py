"""The smallest job: rows are the video ids and who made them. Also a program to kill.

python -m tests.batch_driver OUT ENDPOINT NUM_ITEMS [POINT COUNT]
dies by SIGKILL when it passes POINT the COUNT-th time. ENDPOINT is "-" for a folder.
python -m tests.batch_driver OUT ENDPOINT NUM_ITEMS wait POINT,POINT
stays at each of these points until it reads a line.
"""

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from pipeline.store.commit import Receipt
from pipeline.store.drive import Work, drive
from pipeline.store.items import Item
from pipeline.store.job_plan import (
    Checkpoint,
    CommitPoint,
    JobPlan,
    JobSpec,
    PlannedItems,
    load_plan,
    open_job,
    pass_by,
)
from pipeline.store.objects import ObjectStore
from pipeline.store.open import open_store
from pipeline.store.retry import RetryPolicy
from pipeline.store.s3_config import S3Config

SPEC = JobSpec(source="/clips", model_digest="m" * 16, config="{}", items_per_part=3)


def make_items(count: int) -> Iterator[Item]:
    return (Item(uri=f"/clips/{index:07d}.mp4", etag=f"e{index}") for index in range(count))


def make_rows(items: Sequence[Item], *, attempt: str) -> pa.Table:
    """Two columns, in an order that is not the plan's."""
    ids = [item.video_id for item in items][::-1]
    return pa.table({"video_id": ids, "made_by": [attempt] * len(ids)})


def in_order(plan: JobPlan, parts: Sequence[int]) -> Sequence[int]:
    """As listed: where a test counts on it."""
    return parts


def run_job(
    store: ObjectStore,
    items: Iterable[Item],
    *,
    spec: JobSpec = SPEC,
    order: Callable[[JobPlan, Sequence[int]], Iterable[int]] = in_order,
    checkpoint: Checkpoint = pass_by,
) -> list[Receipt]:
    """The product's driver on rows that cost nothing, one at a time and with no second tries."""
    attempt = uuid.uuid4().hex

    async def make_row(item: Item) -> Item:
        return item

    work = Work(
        make_row=make_row,
        to_table=lambda chosen: make_rows(chosen, attempt=attempt),
        commit_policy=RetryPolicy(attempts=1),
        order=order,
    )
    plan = open_job(store, spec, items, checkpoint=checkpoint)
    return asyncio.run(drive(store, plan, work, checkpoint=checkpoint))


def planned_ids(store: ObjectStore) -> list[str]:
    """Every planned video, in order."""
    plan = load_plan(store)
    assert plan is not None
    planned = PlannedItems(store, plan)
    return [item.video_id for index in range(plan.num_parts) for item in planned.part(index)]


def kill_at(point: CommitPoint, count: int) -> Checkpoint:
    """A checkpoint that SIGKILLs this process at the count-th passing of `point`."""
    passed = [0]

    def checkpoint(here: CommitPoint) -> None:
        passed[0] += here == point
        if here == point and passed[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)

    return checkpoint


def wait_at(points: Collection[CommitPoint]) -> Checkpoint:
    """A checkpoint that stays at each of these points until there is another line on stdin."""

    def checkpoint(here: CommitPoint) -> None:
        if here in points:
            sys.stdin.readline()

    return checkpoint


def end_of(point: str, more: str) -> Checkpoint:
    """As the arguments of this program say it."""
    if point == "wait":
        return wait_at([CommitPoint(each) for each in more.split(",")])
    return kill_at(CommitPoint(point), int(more)) if point else pass_by


def main(out: str, endpoint: str, num_items: str, point: str = "", more: str = "1") -> None:
    store = open_store(out, None if endpoint == "-" else _patient(endpoint))
    checkpoint = end_of(point, more)
    receipts = run_job(store, make_items(int(num_items)), checkpoint=checkpoint)
    print(len(receipts), sum(receipt.is_mine for receipt in receipts))


def _patient(endpoint: str) -> S3Config:
    keys = S3Config.from_environment({**os.environ, "AWS_ENDPOINT_URL": endpoint})
    return replace(
        keys,
        connect_timeout_s=5,
        read_timeout_s=15,
        retry=RetryPolicy(attempts=30, deadline_s=60, max_pause_s=0.5),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
