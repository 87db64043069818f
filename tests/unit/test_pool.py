"""Work goes to the member with the least of it, and to nobody who does not answer."""

import asyncio
from dataclasses import dataclass, field

import pytest

from pipeline.errors import Transient
from pipeline.pool import Berth, Pool


@dataclass
class Worker:
    """Answers once it is told to."""

    name: str
    is_back: asyncio.Event = field(default_factory=asyncio.Event)
    num_asked: int = 0

    async def ready(self) -> bool:
        self.num_asked += 1
        if self.num_asked == 1:
            return False  # patience is at its end once
        await self.is_back.wait()
        return True


def lose(berth: Berth[Worker]) -> None:
    with pytest.raises(Transient), berth.calling():
        raise Transient("lost on the way")
    berth.give_back()


def named(pool: Pool[Worker], *loads: int) -> list[str]:
    return [pool.least_loaded(load=load).member.name for load in loads]


def test_the_least_loaded_member_is_chosen_and_load_ends_when_it_is_given_back() -> None:
    pool = Pool([Worker("a"), Worker("b"), Worker("c")])
    berths = [pool.least_loaded(load=load) for load in (5, 1, 3)]
    assert [each.member.name for each in berths] == ["a", "b", "c"]
    fourth = pool.least_loaded(load=1)
    assert fourth.member.name == "b"
    berths[2].give_back()
    assert named(pool, 9) == ["c"]
    for each in (*berths[:2], fourth):
        each.give_back()
        each.give_back()  # twice is once
    assert sorted(named(pool, 1, 1)) == ["a", "b"]


def test_of_equals_each_has_its_turn() -> None:
    pool = Pool([Worker("a"), Worker("b"), Worker("c")])
    for name in "abcabc":
        berth = pool.least_loaded(load=1)
        assert berth.member.name == name
        berth.give_back()


def test_a_lost_member_is_chosen_no_more_until_it_answers() -> None:
    async def work() -> None:
        a, b = Worker("a"), Worker("b")
        pool = Pool([a, b])
        lose(pool.least_loaded(load=1))
        assert named(pool, 7, 7, 7) == ["b"] * 3  # however much it has to do
        await pool.ready()  # one lives: nobody waits for the other
        a.is_back.set()
        while "a" not in named(pool, 0):
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(work(), 10))


def test_with_everybody_lost_the_first_to_answer_is_waited_for() -> None:
    async def work() -> None:
        a, b = Worker("a"), Worker("b")
        pool = Pool([a, b])
        lose(pool.least_loaded(load=1))
        lose(pool.least_loaded(load=1))
        waiting = asyncio.create_task(pool.ready())
        for _ in range(9):
            await asyncio.sleep(0)
        assert not waiting.done()
        b.is_back.set()
        await waiting
        assert named(pool, 1, 1) == ["b", "b"]

    asyncio.run(asyncio.wait_for(work(), 10))


def test_who_was_lost_when_a_programs_loop_ended_is_asked_again_in_its_next_one() -> None:
    pool = Pool([Worker("a"), Worker("b")])

    async def lose_one() -> None:
        lose(pool.least_loaded(load=1))
        assert named(pool, 0, 0) == ["b", "b"]

    asyncio.run(lose_one())
    assert sorted(named(pool, 0, 0)) == ["a", "b"]
