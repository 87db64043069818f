"""Room that is taken in amounts, in turn."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pipeline.engine.lane import settle
from pipeline.stages.order import YieldingLast


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    num_blocks: int
    yields: bool
    turn: "asyncio.Future[None]"


class Room:
    """So many blocks. Whoever needs more than is free waits, and so do all whose turn is later: who
    came later, and before that who yields.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.num_free = num_blocks
        self._waiting: deque[_Waiting] = deque()  # who came first comes first
        self._order = YieldingLast()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    async def take(self, num_blocks: int, *, yields: bool = False) -> None:
        """Return when they are the caller's, who must know that there could be so many."""
        if num_blocks > self.num_blocks:
            raise ValueError(f"{num_blocks = } of {self.num_blocks}")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(num_blocks, yields, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it got them just before
                self.give(num_blocks)
            self._serve()
            raise

    def give(self, num_blocks: int) -> None:
        """Give back what was taken."""
        self.num_free += num_blocks
        self._serve()

    @asynccontextmanager
    async def taken(self, num_blocks: int) -> AsyncIterator[None]:
        await self.take(num_blocks)
        try:
            yield
        finally:
            self.give(num_blocks)

    def _serve(self) -> None:
        self._waiting = deque(each for each in self._waiting if not each.turn.done())
        while self._waiting:
            first = self._order.sorted(self._waiting, yields=lambda each: each.yields)[0]
            if first.num_blocks > self.num_free:
                return
            self._waiting.remove(first)
            is_passing = any(each.yields for each in self._waiting)
            self._order.let_in(yields=first.yields, is_passing=is_passing)
            self.num_free -= first.num_blocks
            settle(first.turn, None)
