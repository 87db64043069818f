"""Slots of items being made: one that waits for its surroundings leaves its slot to another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MAX_ASIDE = 64  # that wait without a slot; their parts are under way meanwhile


class Slots:
    """num: items being made at once. Who asks first has the next one that is free."""

    def __init__(self, num: int = 1) -> None:
        self.max_begun = num + MAX_ASIDE
        self._free = asyncio.Semaphore(num)

    async def take(self) -> None:
        await self._free.acquire()

    def leave(self) -> None:
        self._free.release()

    @asynccontextmanager
    async def left(self) -> AsyncIterator[None]:
        """One's own is another's meanwhile. Not taken again after an error, which ends the job."""
        self.leave()
        yield
        await self.take()
