"""The driver: many videos in flight, parts committed once whole, the first error stops it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

import pyarrow as pa
import pytest

from pipeline.errors import Stopped, StoreFull, Transient
from pipeline.store import drive as drive_module
from pipeline.store.commit import Part, Receipt, commit_part, load_success, missing_parts
from pipeline.store.drive import Work, drive
from pipeline.store.items import Item
from pipeline.store.job_plan import JobPlan, PlannedItems, Shard, load_plan, open_job
from pipeline.store.objects import ObjectStore
from pipeline.store.part_claims import Claims, rotated
from pipeline.store.retry import RetryPolicy
from pipeline.store.slots import Slots
from pipeline.threads import in_thread
from tests.batch_driver import SPEC, in_order, make_items, make_rows, planned_ids
from tests.stores import FaultyStore, MemoryStore

NUM_ITEMS = 10  # in parts of 3
AT_ONCE = 5
MakeRow = Callable[[Item], Awaitable[Item]]


def submitted() -> tuple[MemoryStore, JobPlan]:
    store = MemoryStore()
    return store, open_job(store, SPEC, make_items(NUM_ITEMS))


def run(
    store: ObjectStore,
    plan: JobPlan,
    make_row: MakeRow,
    *,
    num_at_once: int = AT_ONCE,
    slots: Slots | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
    **how: object,
) -> list[Receipt]:
    work = Work(
        make_row=make_row,
        to_table=lambda items: make_rows(items, attempt="a"),
        slots=slots or Slots(num_at_once),
        **{"order": in_order, **how},
    )
    return asyncio.run(drive(store, plan, work, is_stopping=is_stopping))


def number(item: Item) -> int:
    return int(item.uri[-11:-4])


async def at_once(item: Item) -> Item:
    return item


def test_exactly_so_many_videos_are_in_flight_and_parts_overlap() -> None:
    store, plan = submitted()
    in_flight: set[int] = set()
    most: list[set[int]] = []
    barrier = asyncio.Barrier(AT_ONCE)

    async def make_row(item: Item) -> Item:
        in_flight.add(number(item))
        most.append(set(in_flight))
        async with asyncio.timeout(30):
            await barrier.wait()  # goes on when five are here; ten videos are two times five
        in_flight.remove(number(item))
        return item

    run(store, plan, make_row)
    assert max(map(len, most)) == AT_ONCE
    assert any({0, 1, 2} & numbers and {3, 4, 5} & numbers for numbers in most)
    assert missing_parts(store, plan) == []


def test_every_video_in_flight_may_wait_in_a_thread_of_its_own() -> None:
    num_items = 40  # more than a loop has threads
    store = MemoryStore()
    plan = open_job(store, SPEC, make_items(num_items))
    all_wait = threading.Barrier(num_items, timeout=30)

    async def make_row(item: Item) -> Item:
        await in_thread(all_wait.wait)
        return item

    assert len(run(store, plan, make_row, num_at_once=num_items)) == plan.num_parts


def test_a_slow_video_holds_back_its_own_part_only() -> None:
    store, plan = submitted()
    others_done = asyncio.Event()
    order: list[int] = []

    def committed(receipt: Receipt) -> None:
        order.append(receipt.index)
        if set(order) == {1, 2, 3}:
            others_done.set()

    async def make_row(item: Item) -> Item:
        if number(item) == 0:
            async with asyncio.timeout(30):
                await others_done.wait()
        return item

    receipts = run(store, plan, make_row, committed=committed)
    assert order[-1] == 0
    assert [receipt.index for receipt in receipts] == order
    assert load_success(store) is not None


def test_rows_that_come_in_any_order_stand_in_plan_order() -> None:
    store, plan = submitted()

    async def make_row(item: Item) -> Item:
        for _ in range(NUM_ITEMS - number(item)):
            await asyncio.sleep(0)
        return item

    run(store, plan, make_row)
    tables = [
        pa.parquet.read_table(pa.BufferReader(store.objects[f"parts/part-{index:05d}.parquet"][0]))
        for index in range(4)
    ]
    assert pa.concat_tables(tables)["video_id"].to_pylist() == planned_ids(store)


def test_an_error_stops_the_job_keeps_what_is_whole_and_ends_what_is_under_way() -> None:
    store, plan = submitted()
    cancelled: list[int] = []
    is_waiting = asyncio.Event()

    async def make_row(item: Item) -> Item:
        if number(item) == 5:
            async with asyncio.timeout(30):
                await is_waiting.wait()
                while missing_parts(store, plan)[0] == 0:
                    await asyncio.sleep(0)
            raise StoreFull("no room for a copy")
        if number(item) > 5:
            is_waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(number(item))
                raise
        return item

    with pytest.raises(StoreFull, match="no room"):
        run(store, plan, make_row)
    assert cancelled
    assert missing_parts(store, plan) == [1, 2, 3]
    assert sorted(receipt.index for receipt in run(store, plan, at_once)) == [1, 2, 3]


def test_a_job_that_is_stopping_begins_no_part_and_finishes_those_under_way() -> None:
    store, plan = submitted()
    begun: list[int] = []

    async def make_row(item: Item) -> Item:
        begun.append(number(item))
        async with asyncio.timeout(30):
            while len(begun) < AT_ONCE:  # of the parts 0 and 1, when it begins to stop
                await asyncio.sleep(0)
        return item

    with pytest.raises(Stopped, match="2 of 4 parts are missing"):
        run(store, plan, make_row, is_stopping=lambda: len(begun) >= AT_ONCE)
    assert sorted(begun) == [0, 1, 2, 3, 4, 5]
    assert missing_parts(store, plan) == [2, 3]
    assert load_success(store) is None
    assert sorted(receipt.index for receipt in run(store, plan, at_once)) == [2, 3]


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_commit_that_meets_a_passing_fault_is_tried_again_and_is_ones_own(when) -> None:
    store, plan = submitted()
    puts = FaultyStore(store, fail_at=6, when=when)  # three listings, look, shard, first part
    receipts = run(puts, load_plan(store), at_once, num_at_once=1)
    assert puts.num_calls > 6
    assert all(receipt.is_mine for receipt in receipts)
    assert len(receipts) == 4


def test_a_store_that_stays_down_ends_the_job_with_its_error() -> None:
    store, plan = submitted()
    puts = FaultyStore(store, fail_at=4, when="before")
    with pytest.raises(Transient):
        run(puts, plan, at_once, num_at_once=1, commit_policy=RetryPolicy(attempts=1))
    assert load_success(store) is None


def test_two_drivers_on_one_job_share_its_parts() -> None:
    store = MemoryStore()
    plan = open_job(store, SPEC, make_items(60))  # in 20 parts
    found: list[int] = []
    missing: list[Sequence[int]] = []
    at_work: set[str] = set()

    async def make_row(item: Item) -> Item:
        at_work.add(asyncio.current_task().get_name())
        async with asyncio.timeout(30):
            while len(at_work) < 2:  # or one could be through before the other has looked
                await asyncio.sleep(0)
        return item

    async def both() -> list[list[Receipt]]:
        upwards, downwards = (
            Work(
                make_row=make_row,
                to_table=lambda items: make_rows(items, attempt="a"),
                order=order,
                begun=missing.append,
                found=found.append,
            )
            for order in (in_order, lambda plan, parts: reversed(parts))
        )
        return await asyncio.gather(drive(store, plan, upwards), drive(store, plan, downwards))

    receipts = asyncio.run(both())
    num_made = sum(map(len, receipts))
    assert min(map(len, receipts)) > 0
    assert num_made + len(found) == 2 * plan.num_parts
    assert missing == [list(range(plan.num_parts))] * 2
    assert num_made <= plan.num_parts + 1  # where they meet
    assert missing_parts(store, plan) == []
    assert load_success(store) is not None


def test_an_item_that_is_set_aside_leaves_its_slot_to_others() -> None:
    store, plan = submitted()
    slots, made, others_made = Slots(1), list[int](), asyncio.Event()

    async def make_row(item: Item) -> Item:
        if number(item) == 0:
            async with asyncio.timeout(30), slots.left():
                await others_made.wait()
        made.append(number(item))
        if len(made) == NUM_ITEMS - 1:
            others_made.set()
        return item

    run(store, plan, make_row, slots=slots)
    assert made == [*range(1, NUM_ITEMS), 0]
    assert load_success(store) is not None


def test_who_waits_for_another_driver_holds_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or two that wait for each other's last part would never make what they have set aside."""
    store, plan = submitted()
    other = Claims(store, plan, [3], name="other")
    next(other.taken())
    slots, is_waiting, is_made = Slots(1), asyncio.Event(), asyncio.Event()

    async def wait(seconds: float, is_stopping: Callable[[], bool]) -> None:
        is_waiting.set()
        async with asyncio.timeout(30):
            await is_made.wait()

    async def make_row(item: Item) -> Item:
        if number(item) == 0:
            async with asyncio.timeout(30), slots.left():
                await is_waiting.wait()
            table = make_rows(PlannedItems(store, plan).part(3), attempt="other")
            ids = tuple(item.video_id for item in PlannedItems(store, plan).part(3))
            part = Part(job_id=plan.job_id, index=3, video_ids=ids, attempt="other")
            await in_thread(commit_part, store, part, table)
            is_made.set()
        return item

    monkeypatch.setattr(drive_module, "_wait", wait)
    receipts = run(store, plan, make_row, slots=slots)
    assert sorted(receipt.index for receipt in receipts) == [0, 1, 2]
    assert load_success(store) is not None


def test_each_driver_has_an_order_of_its_own_and_reads_a_shard_once() -> None:
    shards = tuple(Shard(sha256=name, num_items=90) for name in "abc")
    plan = JobPlan(job_id="job", spec=SPEC, shards=shards)
    parts = list(range(90))
    orders = [rotated(plan, parts) for _ in range(3)]
    assert all(sorted(order) == parts for order in orders)
    assert len(set(map(tuple, orders))) == 3
    for order in orders:
        read = [index // 30 for index in order]
        assert sum(one != following for one, following in pairwise(read)) == 2
