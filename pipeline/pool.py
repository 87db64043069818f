"""Several that do the same work: which of them has the least to do, and which do not answer."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

from pipeline.errors import Transient


class Answering(Protocol):
    """What a pool has to know of its members."""

    async def ready(self) -> bool:
        """Wait until it answers; False when patience is at its end."""


Member = TypeVar("Member", bound=Answering)


@dataclass(frozen=True, slots=True)
class Berth(Generic[Member]):
    """A member with some load of this process's on it, until it is given back."""

    member: Member
    give_back: Callable[[], None] = field(repr=False)
    lost: Callable[[], None] = field(repr=False)

    @contextmanager
    def calling(self) -> Iterator[Member]:
        """The member, to be called; a loss on the way is remembered, and raised."""
        try:
            yield self.member
        except Transient:
            self.lost()
            raise


class Pool(Generic[Member]):
    """Knows the load that this process has put on each member, and who was found lost.

    A lost member is chosen no more until it answers: it fails faster than the others work, so that
    the least loaded one would always be it.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self._loads = [0] * len(self.members)
        self._next = 0  # so that of equals each has its turn
        self._away: dict[int, asyncio.Task[None]] = {}

    def least_loaded(self, *, load: int) -> Berth[Member]:
        """The present member with the smallest load, which is `load` larger until it is given back.

        Giving back twice is once. With nobody present it is one of the lost.
        """
        count = len(self.members)
        in_turn = [(self._next + step) % count for step in range(count)]
        present = [index for index in in_turn if not self._is_away(index)] or in_turn
        chosen = min(present, key=self._loads.__getitem__)
        self._next = (chosen + 1) % count
        self._loads[chosen] += load
        is_held = True

        def give_back() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._loads[chosen] -= load

        return Berth(self.members[chosen], give_back, partial(self._lost, chosen))

    def _lost(self, index: int) -> None:
        """Nobody is sent there until it answers."""
        if not self._is_away(index):
            self._away[index] = asyncio.get_running_loop().create_task(self._until_back(index))

    def _is_away(self, index: int) -> bool:
        """A look-out that ended with its loop, as between two runs of a program, is none."""
        return index in self._away and not self._away[index].done()

    async def ready(self) -> None:
        """Return as soon as one member is present, however many are lost."""
        while all(map(self._is_away, range(len(self.members)))):
            await asyncio.wait(self._away.values(), return_when=asyncio.FIRST_COMPLETED)

    async def _until_back(self, index: int) -> None:
        while not await self.members[index].ready():
            pass
        del self._away[index]
