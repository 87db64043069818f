"""Room in vLLM's cache: in the order of who asked, and given back whoever gives up."""

import asyncio

import pytest

from actors.vllm.room import Room
from tests.streams import wait


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_needs_much_is_not_overtaken_by_who_needs_little():
    async def work() -> None:
        room, order = Room(4), list[str]()

        async def take(name: str, amount: int) -> None:
            await room.take(amount)
            order.append(name)

        await take("first", 3)
        waiting = [asyncio.create_task(take("much", 4)), asyncio.create_task(take("little", 1))]
        await settled()
        assert (order, room.num_free, room.num_waiting) == (["first"], 1, 2)
        room.give(3)
        await settled()
        assert order == ["first", "much"]
        room.give(4)
        await asyncio.gather(*waiting)
        assert order == ["first", "much", "little"]

    wait(work())


def test_who_yields_is_overtaken_by_who_does_not():
    async def work() -> None:
        room, order = Room(2), list[str]()

        async def pass_through(name: str, *, yields: bool) -> None:
            await room.take(2, yields=yields)
            order.append(name)
            room.give(2)

        await room.take(2)
        passing = [
            asyncio.create_task(pass_through("batch", yields=True)),
            asyncio.create_task(pass_through("request", yields=False)),
        ]
        await settled()
        room.give(2)
        await asyncio.gather(*passing)
        assert order == ["request", "batch"]

    wait(work())


def test_who_gives_up_takes_nothing_and_holds_nobody_back():
    async def work() -> None:
        room = Room(2)
        await room.take(2)
        much, little = asyncio.create_task(room.take(2)), asyncio.create_task(room.take(1))
        await settled()
        room.give(1)
        much.cancel()
        await little
        assert (room.num_free, room.num_waiting) == (0, 0)
        given = asyncio.create_task(room.take(2))
        await settled()
        room.give(2)
        given.cancel()  # it has them already, and does not know
        await asyncio.gather(given, return_exceptions=True)
        assert room.num_free == 2

    wait(work())


def test_more_than_there_is_is_never_waited_for():
    with pytest.raises(ValueError, match="num_blocks = 3"):
        wait(Room(2).take(3))
