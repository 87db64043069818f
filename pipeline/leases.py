"""What is open for whom, and for how long: as long as its holder says so.

A holder claims what it has open from time to time. What it does not claim any more is closed, since
its own call to close it was lost; so is all that belongs to a holder which fell silent, and at once
what belongs to one that is certainly gone.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from pipeline.engine.ids import StreamId

LOOKS_PER_LEASE = 4  # and renewals: three may be lost


@dataclass(frozen=True, slots=True)
class Claim:
    """What one life of a holder has open: of the numbers below `below` these, and no others."""

    owner: str
    life: str
    numbers: frozenset[int]
    below: int

    def gives_up(self, name: StreamId) -> bool:
        """Whether it was open once, for this holder, and is no longer wanted."""
        return name.number < self.below and name.number not in self.numbers


class Leases:
    """When each holder was last heard of, and what it claimed then. Who opens something speaks."""

    def __init__(self, *, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.lease_s = lease_s
        self._clock = clock
        self._heard_s: dict[tuple[str, str], float] = {}
        self._claims: dict[tuple[str, str], Claim] = {}

    def renew(self, claim: Claim) -> None:
        """The holder lives, and wants this."""
        holder = claim.owner, claim.life
        self._heard_s[holder] = self._clock()
        self._claims[holder] = claim

    def overdue(self, names: Iterable[StreamId]) -> list[StreamId]:
        """Those of all open names that are to be closed."""
        now_s = self._clock()
        names = list(names)
        holders = {(name.owner, name.life) for name in names}
        for holder in self._heard_s.keys() - holders:
            del self._heard_s[holder]
            self._claims.pop(holder, None)
        for holder in holders - self._heard_s.keys():
            self._heard_s[holder] = now_s
        return [name for name in names if self._is_overdue(name, now_s)]

    def _is_overdue(self, name: StreamId, now_s: float) -> bool:
        holder = name.owner, name.life
        claim = self._claims.get(holder)
        is_given_up = claim is not None and claim.gives_up(name)
        return is_given_up or now_s - self._heard_s[holder] > self.lease_s


async def nobody_can_tell(owner: str) -> bool:
    """Whose silence alone says that they are gone."""
    return False


class Lessor:
    """Keeps what its holders claim and closes the rest, wherever `names` are open.

    until_gone: returns True when this owner is gone for good, False if that cannot be told.
    """

    def __init__(
        self,
        names: Callable[[], Iterable[StreamId]],
        close: Callable[[StreamId], Awaitable[None]],
        *,
        lease_s: float,
        until_gone: Callable[[str], Awaitable[bool]] = nobody_can_tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names, self._close = names, close
        self._leases = Leases(lease_s=lease_s, clock=clock)
        self._until_gone = until_gone
        self._looking: asyncio.Task[None] | None = None
        self._watched: dict[str, asyncio.Task[None]] = {}

    async def renew(self, claim: Claim) -> None:
        """The holder lives, and wants this and nothing else."""
        self._leases.renew(claim)
        await self._close_overdue()

    def watch(self, owner: str) -> None:
        """Before something is opened for this owner: from now on look for who is gone, or silent,
        in the event loop that is running.
        """
        loop = asyncio.get_running_loop()
        if self._looking is None or self._looking.done():
            self._looking = loop.create_task(self._look())
        if owner not in self._watched:
            self._watched[owner] = loop.create_task(self._close_when_gone(owner))

    async def _look(self) -> None:
        while True:
            await self._close_overdue()
            await asyncio.sleep(self._leases.lease_s / LOOKS_PER_LEASE)

    async def _close_when_gone(self, owner: str) -> None:
        try:
            if await self._until_gone(owner):
                left = [name for name in self._names() if name.owner == owner]
                await asyncio.gather(*map(self._close, left))
        finally:
            del self._watched[owner]

    async def _close_overdue(self) -> None:
        overdue = self._leases.overdue(self._names())
        await asyncio.gather(*map(self._close, overdue))
