"""What work occupies: cores and cards, shared by whoever needs them, the most urgent first."""

import asyncio
import heapq
import itertools
from concurrent.futures import Executor
from typing import Any

SLICE_S = 0.02  # after which more urgent work gets its turn
MOST_SLICES = 16  # of long work, whose slices are longer


class Shared:
    """So many equal processors. speed: of each, since other work may have a part of it.

    busy_s: that they have worked, added up.
    """

    def __init__(self, num_units: int, *, speed: float = 1.0, slice_s: float = SLICE_S) -> None:
        self.num_units = num_units
        self.busy_s = 0.0
        self._speed = speed
        self._slice_s = slice_s
        self._free = num_units
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    async def use(self, seconds: float, *, urgency: int = 0) -> None:
        """Work for so long on one of them. urgency: the smallest goes first."""
        self.busy_s += seconds
        slice_s = max(self._slice_s, seconds / MOST_SLICES)
        while seconds > 0:
            await self._take(urgency)
            try:
                part = min(seconds, slice_s)
                await asyncio.sleep(part / self._speed)
                seconds -= part
            finally:
                self._give_back()

    async def _take(self, urgency: int) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given one, and goes without using it
                self._give_back()
            raise

    def _give_back(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Worker(Executor):
    """A thread that works on what it shares with others. share: of the time that is spent."""

    def __init__(self, shared: Shared, *, urgency: int = 0, share: float = 1.0) -> None:
        self._shared, self._urgency, self._share = shared, urgency, share
        self.busy_s = 0.0

    async def occupy(self, seconds: float) -> None:
        """Let the time of a call pass."""
        self.busy_s += seconds * self._share
        await self._shared.use(seconds * self._share, urgency=self._urgency)

    def submit(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("a worker works in virtual time only")
