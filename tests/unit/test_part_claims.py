"""Drivers that share a job: each part is begun by one of them, and none is left behind."""

import asyncio
from collections.abc import Iterator

import pytest

from pipeline.life import end, here
from pipeline.store import part_claims as module
from pipeline.store.commit import Receipt, load_success, part_key
from pipeline.store.drive import Work, drive
from pipeline.store.items import Item
from pipeline.store.job_plan import JobPlan, open_job
from pipeline.store.objects import ObjectStore
from pipeline.store.part_claims import (
    CLAIM_PREFIX,
    TERM_S,
    Claims,
    Wait,
    claim_key,
)
from pipeline.store.slots import Slots
from tests.batch_driver import SPEC, in_order, make_items, make_rows
from tests.stores import FaultyStore, MemoryStore

NUM_PARTS = 100
NUM_DRIVERS = 8
HOUR_S = 3_600


class Clock:
    now_s = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    held = Clock()
    monkeypatch.setattr(module, "_now_s", lambda: held.now_s)
    return held


def submitted(num_parts: int) -> tuple[MemoryStore, JobPlan]:
    store = MemoryStore()
    return store, open_job(store, SPEC, make_items(3 * num_parts))


def claims(store: ObjectStore, plan: JobPlan, name: str, **how: object) -> Claims:
    missing = list(range(plan.num_parts))
    return Claims(store, plan, missing, name=name, **{"order": in_order, **how})


def commit(store: MemoryStore, index: int) -> None:
    store.put_new(part_key(index), b"rows")


def parts(taken: Iterator[int | Wait], count: int) -> list[int | Wait]:
    return [next(taken) for _ in range(count)]


def test_many_drivers_make_each_part_once() -> None:
    store, plan = submitted(NUM_PARTS)

    async def make_row(item: Item) -> Item:
        await asyncio.sleep(0)
        return item

    async def all_of_them() -> list[list[Receipt]]:
        work = Work(
            make_row=make_row,
            to_table=lambda items: make_rows(items, attempt="a"),
            slots=Slots(4),
        )
        return await asyncio.gather(*(drive(store, plan, work) for _ in range(NUM_DRIVERS)))

    made = sorted(each.index for receipts in asyncio.run(all_of_them()) for each in receipts)
    assert made == list(range(NUM_PARTS))
    assert load_success(store) is not None


def test_who_meets_anothers_parts_goes_on_elsewhere() -> None:
    store, plan = submitted(6)
    one, other = (claims(store, plan, name).taken() for name in ("one", "other"))
    assert parts(one, 2) == [0, 1]
    assert parts(other, 2) == [2, 3]
    assert parts(one, 2) == [4, 5]


def test_what_a_driver_left_that_is_seen_to_be_dead_is_made_at_once() -> None:
    store, plan = submitted(4)
    name = here()
    parts(claims(store, plan, name).taken(), 3)
    for begun, missing in ((1, 4), (0, 4)):  # none, later: then in a further round of each
        end(name)
        name = here()
        again = claims(store, plan, name)
        taken = parts(again.taken(), missing)
        assert taken[:begun] == [3][:begun]
        assert set(taken) == {0, 1, 2, 3}
        assert again.num_left == 0


def test_who_comes_when_all_parts_are_claimed_begins_none_that_is_under_way(clock: Clock) -> None:
    store, plan = submitted(2)
    first = claims(store, plan, "first")
    parts(first.taken(), 2)
    late = claims(store, plan, "late")
    taken = late.taken()
    for clock.now_s in range(0, HOUR_S, 5):
        first.renew()
        assert isinstance(next(taken), Wait)
    commit(store, 0)
    first.made(0)
    assert isinstance(next(taken), Wait)
    for clock.now_s in range(HOUR_S, 2 * HOUR_S, 5):  # while nobody renews the other
        if next(taken) == 1:
            break
    else:
        pytest.fail("what a dead driver claimed is left for ever")
    assert list(taken) == []
    assert late.num_left == 0


def test_a_claim_holds_for_an_hour_at_most_however_often_it_was_renewed(clock: Clock) -> None:
    store, plan = submitted(1)
    first = claims(store, plan, "first")
    parts(first.taken(), 1)
    for clock.now_s in range(0, 24 * HOUR_S, 60):
        first.renew()
    taken = claims(store, plan, "late").taken()
    assert isinstance(next(taken), Wait)
    clock.now_s += HOUR_S
    assert next(taken) == 0


def test_in_company_it_is_made_when_it_takes_too_long_and_by_one(clock: Clock) -> None:
    store, plan = submitted(4)
    dead, one, other = (claims(store, plan, name) for name in ("dead", "one", "other"))
    parts(dead.taken(), 1)
    first, second = one.taken(), other.taken()
    assert [next(first), next(second), next(first)] == [1, 2, 3]
    for index, each in ((1, one), (3, one), (2, other)):
        commit(store, index)
        each.made(index)
    assert isinstance(next(first), Wait)
    assert isinstance(next(second), Wait)
    clock.now_s = TERM_S
    assert next(first) == 0
    assert isinstance(next(second), Wait)  # and has twice the patience now
    commit(store, 0)
    assert list(second) == []
    assert other.num_left == 0


def test_who_is_still_at_work_keeps_a_part_with_few_puts_however_long_it_takes(
    clock: Clock,
) -> None:
    store, plan = submitted(2)
    slow, one = claims(store, plan, "slow"), claims(store, plan, "one")
    slowly, taken = slow.taken(), one.taken()
    assert [next(taken), next(slowly)] == [0, 1]
    commit(store, 0)
    one.made(0)
    for clock.now_s in range(0, HOUR_S, 5):
        slow.renew()
        assert isinstance(next(taken), Wait)
    assert len([key for key in store.objects if key.startswith(claim_key(0, 1))]) < 10
    for clock.now_s in range(HOUR_S, 3 * HOUR_S, 5):  # and is renewed no more
        if next(taken) == 1:
            break
    else:
        pytest.fail("a dead driver's part is left for ever")


def test_who_was_taken_over_may_still_be_the_first_to_commit(clock: Clock) -> None:
    store, plan = submitted(2)
    slow, one = claims(store, plan, "slow"), claims(store, plan, "one")
    slowly, taken = slow.taken(), one.taken()
    assert [next(taken), next(slowly)] == [0, 1]
    assert isinstance(next(taken), Wait)
    clock.now_s = TERM_S  # for which it was stopped
    assert next(taken) == 1
    slow.renew()
    slow.renew()
    commit(store, 0)
    commit(store, 1)
    slow.made(1)
    assert list(slowly) == list(taken) == []
    assert slow.num_left == one.num_left == 0


def test_each_part_that_another_made_is_heard_of_once() -> None:
    store, plan = submitted(3)
    found: list[int] = []
    one = claims(store, plan, "one", found=found.append).taken()
    other = claims(store, plan, "other").taken()
    assert [next(one), next(other), next(one)] == [0, 1, 2]
    for index in range(3):
        commit(store, index)
    assert list(one) == []
    assert found == [1]


def test_a_claim_whose_answer_was_lost_is_ones_own() -> None:
    class Forgetful(MemoryStore):
        def put_new(self, key: str, data: bytes) -> bool:
            return super().put_new(key, data) and not key.startswith(CLAIM_PREFIX)

    store = Forgetful()
    plan = open_job(store, SPEC, make_items(6))
    assert list(claims(store, plan, "one").taken()) == [0, 1]


def test_the_claims_of_a_shard_are_listed_once_by_one_driver() -> None:
    store, plan = submitted(NUM_PARTS)
    counted = FaultyStore(store, fail_at=0, when="before")
    assert len(list(claims(counted, plan, "one").taken())) == NUM_PARTS
    assert counted.num_calls == NUM_PARTS + 1
    assert claim_key(0, 0) in store.objects
