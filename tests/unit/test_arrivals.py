"""Chunks reach a stream in their order, whichever call comes first."""

import asyncio

import pytest

from actors.arrivals import Arrivals
from pipeline.errors import Transient


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_calls_begin_in_their_order_however_they_arrive(order: tuple[int, ...]):
    async def run() -> list[int]:
        arrivals, begun = Arrivals(), []
        arrivals.open("a/0")

        async def call(number: int) -> None:
            await arrivals.until_turn("a/0", number)
            begun.append(number)

        await asyncio.gather(*map(call, order))
        return begun

    assert asyncio.run(run()) == [0, 1, 2]


@pytest.mark.parametrize("end", ["close", "release"])
def test_a_call_whose_turn_never_comes_ends_with_its_stream(end: str):
    async def run() -> None:
        arrivals = Arrivals()
        arrivals.open("a/0")
        early = asyncio.create_task(arrivals.until_turn("a/0", 1))
        await asyncio.sleep(0)
        assert not early.done()
        arrivals.close("a/0") if end == "close" else arrivals.release("a")
        with pytest.raises(Transient):
            await early

    asyncio.run(run())


def test_calls_of_unknown_streams_and_repeated_ones_do_not_wait():
    async def run() -> None:
        arrivals = Arrivals()
        await arrivals.until_turn("gone/0", 5)  # the replica says that it has no such stream
        arrivals.open("a/0")
        for number in (0, 1, 0):
            await arrivals.until_turn("a/0", number)
        arrivals.close("a/0")
        await arrivals.until_turn("a/0", 2)

    asyncio.run(run())
