"""What comes fast travels together, in order, and nothing waits that need not."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from pipeline.gathered import gathered
from tests.virtual_time import run_virtually as run

GAP_S = 1.0


async def items(
    *times_s: float, error: Exception | None = None, closed: list[str] | None = None
) -> AsyncGenerator[float, None]:
    """Each time, at that time."""
    started_s = asyncio.get_running_loop().time()
    try:
        for time_s in times_s:
            await asyncio.sleep(started_s + time_s - asyncio.get_running_loop().time())
            yield time_s
        if error:
            raise error
    finally:
        if closed is not None:
            closed.append("closed")


async def arrivals(*times_s: float) -> list[tuple[float, list[float]]]:
    started_s = asyncio.get_running_loop().time()
    return [
        (asyncio.get_running_loop().time() - started_s, batch)
        async for batch in gathered(items(*times_s), gap_s=GAP_S)
    ]


def test_the_first_comes_at_once_and_what_follows_fast_comes_together() -> None:
    seen = run(arrivals(0.5, 0.7, 0.8, 1.4, 4.0, 9.0))
    assert [batch for _, batch in seen] == [[0.5], [0.7, 0.8, 1.4], [4.0], [9.0]]
    assert [time_s for time_s, _ in seen] == pytest.approx([0.5, 1.5, 4.0, 9.0])


def test_the_last_ones_do_not_wait() -> None:
    assert run(arrivals(0.5, 0.6)) == [(0.5, [0.5]), (0.6, [0.6])]


def test_nothing_is_no_list() -> None:
    assert run(arrivals()) == []


def test_an_error_comes_after_the_items_before_it() -> None:
    seen: list[list[float]] = []

    async def session() -> None:
        async for batch in gathered(items(0.1, 0.2, error=ValueError("lost")), gap_s=GAP_S):
            seen.append(batch)

    with pytest.raises(ValueError, match="lost"):
        run(session())
    assert seen == [[0.1], [0.2]]


def test_whoever_leaves_early_closes_the_items() -> None:
    async def session() -> list[str]:
        closed: list[str] = []
        batches = gathered(items(0.1, 9.0, closed=closed), gap_s=GAP_S)
        async for _ in batches:
            break
        await batches.aclose()
        return closed

    assert run(session()) == ["closed"]
