"""Whose fault a failure is: the video's own is its row, another's is tried again or stops the job.

What the store or the fleet may have done counts against a video only where others get through: it
has to fail MAX_AGAINST times with somebody else's success before each next one. Meanwhile it is set
aside, and others go on. Where different videos fail in a row nobody is sent on; one probe after
another finds out when it is over. Where the store serves others and none of a video's folder, as
when a mount or a policy is wrong, that folder has time to come back (troubled_folders.py).
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable
from itertools import islice

from jobs.batch.troubled_folders import TroubledFolders
from pipeline.breaker import Breaker
from pipeline.errors import Blame, FailureCode, Outage
from pipeline.store.items import Item
from pipeline.store.slots import Slots
from pipeline.tasks.records import Record

MAX_AGAINST = 3
MAX_WITNESSES = 8  # that are looked for one
PAUSE = 1 / 600  # of the patience, between two tries of one video

MakeRow = Callable[[Item], Awaitable[Record]]


class Jury:
    """Makes rows, and lets no innocent one out.

    make_row: one try. slots: whoever calls has one; it is left while there is nothing to be tried.
    patience_s: how long a store or a fleet may fail everybody. give_up: codes that the operator
    takes as rows at once. witnesses: other videos of the job, the likeliest first; one is tried
    where nobody else is there to tell. told: hears all that is waited for, and "" when that is
    over.
    """

    def __init__(
        self,
        make_row: MakeRow,
        *,
        slots: Slots,
        patience_s: float,
        give_up: Collection[str] = (),
        witnesses: Iterable[Item] = (),
        told: Callable[[str], None] = lambda what: None,
    ) -> None:
        self._make_row = make_row
        self._slots = slots
        self._give_up = give_up
        self._patience_s = patience_s
        self._witnesses = islice(witnesses, MAX_WITNESSES)
        self._witness: Item | None = None  # a small video that got through
        self._told = told
        self._outage = self._waited_for = ""
        surroundings = (Blame.STORE, Blame.FLEET)
        self._breakers = {each: Breaker(patience_s=patience_s, clock=_now) for each in surroundings}
        self._folders = TroubledFolders(patience_s=patience_s, clock=_now)
        self._turn = asyncio.Lock()  # of whoever finds out how things are
        self._num_trying = 0
        self._ended = asyncio.Event()  # set, and replaced, when a try ends

    async def make_row(self, item: Item) -> Record:
        """The item's row. Outage where nobody gets through, for as long as there is patience."""
        num_against, since_s = 0, -math.inf
        while True:
            record = await self._try(item)
            blame = self._blame(record)
            if blame is Blame.VIDEO:
                return record
            breaker = self._breakers[blame]
            if breaker.passed_s >= since_s:  # somebody else began since then and got through
                if blame is Blame.STORE and (wait_s := self._folder_wait_s(item, since_s)):
                    async with self._slots.left():
                        await asyncio.sleep(wait_s)
                    continue
                num_against, since_s = num_against + 1, _now()
            if num_against == MAX_AGAINST:
                return record
            async with self._slots.left():
                await asyncio.sleep(PAUSE * self._patience_s)
            await self._until_somebody(item, blame, record, since_s)

    async def _try(self, item: Item) -> Record:
        """One try when nothing is known to be down; until then one probe after another."""
        while blame := self._down:
            async with self._turn:
                breaker = self._breakers[blame]
                while breaker.wait_s > 0:
                    await asyncio.sleep(breaker.wait_s)
                if not breaker.is_open:
                    continue
                # A fleet is known by any video; a store may refuse some and serve others.
                probe = (self._witness if blame is Blame.FLEET else None) or item
                record = await self._once(probe)
                if breaker.is_spent:
                    raise Outage(self._description(blame, record))
                if probe is item:
                    return record
                self._hear(record, blame)
        return await self._once(item)

    async def _until_somebody(
        self, item: Item, blame: Blame, record: Record, since_s: float
    ) -> None:
        """Return when there is something to be learnt from another try."""
        breaker = self._breakers[blame]

        def is_told() -> bool:
            return breaker.passed_s >= since_s or breaker.is_open

        while not is_told() and self._num_trying:
            async with self._slots.left():
                await self._ended.wait()
        async with self._turn:
            while not is_told() and (witness := self._witness or next(self._witnesses, None)):
                if witness == item:
                    self._witness = None  # it got through once, and does no more
                    continue
                is_proven = witness is self._witness
                self._hear(await self._once(witness), blame)
                if is_proven and self._witness is not None and not is_told():
                    break
            if not is_told():
                breaker.trip()
                self._outage = self._description(blame, record)
                self._tell()

    def _hear(self, witness: Record, blame: Blame) -> None:
        """A witness that fails in a way of its own says nothing, and is asked no more."""
        if witness.status != "ok" and self._blame(witness) is not blame:
            self._witness = None

    async def _once(self, item: Item) -> Record:
        began_s = _now()
        self._num_trying += 1
        try:
            record = await self._make_row(item)
        finally:
            self._num_trying -= 1
            self._ended.set()
            self._ended = asyncio.Event()
        self._learn(item, record, began_s)
        return record

    def _learn(self, item: Item, record: Record, began_s: float) -> None:
        store, fleet = self._breakers[Blame.STORE], self._breakers[Blame.FLEET]
        down = self._down
        match self._blame(record):
            case Blame.STORE:
                if self._folders.failed(item.uri, passed_s=store.passed_s) or store.is_open:
                    store.failed(item.video_id)
            case Blame.FLEET:
                store.passed(began_s)
                self._folders.passed(item.uri, began_s)
                fleet.failed(item.video_id)
            case Blame.VIDEO if record.status == "ok":
                store.passed(began_s)
                self._folders.passed(item.uri, began_s)
                fleet.passed(began_s)
                if self._witness is None or _size(item) < _size(self._witness):
                    self._witness = item
        if down != self._down:
            self._outage = self._description(self._down, record) if self._down else ""
        self._tell()

    def _folder_wait_s(self, item: Item, since_s: float) -> float:
        wait_s = self._folders.wait_s(item.uri, since_s=since_s)
        self._tell()
        return wait_s

    def _tell(self) -> None:
        waited_for = "; ".join(filter(None, (self._outage, self._folders.waited_for)))
        if waited_for != self._waited_for:
            self._waited_for = waited_for
            self._told(waited_for)

    def _blame(self, record: Record) -> Blame:
        if record.code is None or record.code in self._give_up:
            return Blame.VIDEO
        return FailureCode(record.code).blame

    @property
    def down(self) -> Blame | None:
        """Who fails everybody, if somebody does."""
        return self._down

    @property
    def _down(self) -> Blame | None:
        return next((blame for blame, each in self._breakers.items() if each.is_open), None)

    def _description(self, blame: Blame, record: Record) -> str:
        count = self._breakers[blame].num_failed
        return (
            f"the {blame} fails whatever it is asked, {count} "
            f"{'video' if count == 1 else 'videos in a row'}, the last with {record.code}: "
            f"{record.detail} ({record.uri}); --give-up {record.code} takes such rows"
        )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _size(item: Item) -> int:
    return item.size_bytes or 0
