"""Running ahead of the consumer, but only so far, in order, and never after it has gone."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import pytest

from pipeline.ahead import read_ahead


class Numbers:
    """A blocking generator that tells how far it got, where it ran and whether it was closed."""

    def __init__(self, stop, *, error=None):
        self.num_made = 0
        self.num_taken = 0  # as the consumer says
        self.largest_lead = 0
        self.is_closed = False
        self.threads = set()
        self._stop = stop
        self._error = error

    def __iter__(self):
        try:
            for number in range(self._stop):
                self.threads.add(threading.get_ident())
                self.num_made += 1
                self.largest_lead = max(self.largest_lead, self.num_made - self.num_taken)
                yield number
            if self._error is not None:
                raise self._error
        finally:
            self.is_closed = True


def run(numbers, consume, *, depth=2):
    async def main():
        async with aclosing(read_ahead(iter(numbers), depth=depth, thread=thread)) as items:
            return await consume(items)

    with ThreadPoolExecutor(1) as thread:
        return asyncio.run(main())


async def collect(items):
    return [item async for item in items]


@pytest.mark.parametrize("depth", [1, 2, 10])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_everything_comes_in_order(count, depth):
    numbers = Numbers(count)
    assert run(numbers, collect, depth=depth) == list(range(count))
    assert numbers.is_closed
    assert len(numbers.threads) <= 1


def test_it_runs_ahead_by_depth_and_then_waits_for_the_consumer():
    numbers = Numbers(100)

    async def consume(items):
        async for item in items:
            numbers.num_taken = item + 1
            async with asyncio.timeout(10):
                while numbers.num_made < numbers.num_taken + 3:
                    await asyncio.sleep(0)
            if item == 20:
                return

    run(numbers, consume, depth=3)
    assert 3 <= numbers.largest_lead <= 4  # 4 while an item changes hands


def test_a_consumer_that_stops_closes_the_reader_in_its_own_thread():
    numbers = Numbers(100)

    async def consume(items):
        return await anext(items)

    assert run(numbers, consume) == 0
    assert numbers.is_closed
    assert numbers.num_made <= 4


def test_an_error_comes_after_the_items_before_it():
    numbers = Numbers(3, error=LookupError("end"))
    taken = []

    async def consume(items):
        async for item in items:
            taken.append(item)

    with pytest.raises(LookupError):
        run(numbers, consume)
    assert taken == [0, 1, 2]


def test_a_cancelled_consumer_leaves_nothing_running():
    numbers = Numbers(100)

    async def consume(items):
        async for _ in items:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(numbers, consume)
    assert numbers.is_closed
