"""Which part a driver makes next, where several share a job.

Who begins a part says so by a create-only put, and others pass it by. A claim orders work and
decides nothing: rows count when they are committed, whoever made them. So it needs no clock that
drivers share, and may be lost.

When nothing is unclaimed, a driver waits for what others have under way. A claim holds for a term
from when it is seen, and whoever is still at work claims the part's next round before that ends,
which holds twice as long, up to half an hour: few puts however long a part takes. A term that ended
is a driver that died: another claims the next round. Whose death can be seen from here, as that of
a process of this machine, is waited for no longer.

A shard of the plan has its claims under a prefix of its own: to look for a free part is to list
that. Claims of an output from before there were any, or that somebody deleted, cost double work.
"""

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.life import is_gone
from pipeline.store.commit import missing_parts, part_key, split_parts
from pipeline.store.job_plan import JobPlan
from pipeline.store.objects import ObjectStore, exists, find

CLAIM_PREFIX = "claims/"
TERM_S = 30.0  # of a part's first claim; twice as long with each round
MOST_DOUBLED = 6  # rounds, up to half an hour
RENEWED_AFTER = 2 / 3  # of a term
LOOK_AFTER = 0.2  # of the time that one waits already
LEAST_LOOK_S, MOST_LOOK_S = 0.2, 30.0
NAME_BYTES = 1024  # of a driver, at most
KEYS_OF_ONE_LISTING = 1_000  # as S3 pages
COUNTED_EVERY_S = 10.0

Order = Callable[[JobPlan, Sequence[int]], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Wait:
    """There is nothing to begin for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class _Begun:
    """since_s: that this driver made it, or knows of another's. is_left: by one that is dead."""

    round: int
    since_s: float
    is_left: bool = False

    @property
    def term_s(self) -> float:
        return TERM_S * 2.0 ** min(self.round, MOST_DOUBLED)


def claim_key(shard: int, index: int, round: int = 0) -> str:  # noqa: A002 - its word
    """Of a part in a shard of the plan; of later rounds."""
    more = f"_{round:03d}" if round else ""
    return f"{CLAIM_PREFIX}{shard:05d}/{index:05d}{more}"


def rotated(plan: JobPlan, parts: Sequence[int]) -> list[int]:
    """Parts from a place of this driver's own on, all around: two meet where one began.

    Those of one shard of the plan stay together, so that each is read once.
    """
    shards: dict[int, list[int]] = {}
    for index in parts:
        shards.setdefault(index // plan.parts_per_shard, []).append(index)
    turned = list[int]()
    for shard in random.sample(list(shards.values()), len(shards)):
        first = random.randrange(len(shard))  # noqa: S311 - of no secret
        turned += shard[first:] + shard[:first]
    return turned


class Claims:
    """One driver's. Not safe between threads: whoever takes from it has his turn.

    name: of the driver, nobody else's, as `here` has it. found: hears of each missing part that
    another has made.
    """

    def __init__(
        self,
        store: ObjectStore,
        plan: JobPlan,
        missing: Sequence[int],
        *,
        name: str,
        order: Order = rotated,
        found: Callable[[int], None] = lambda index: None,
    ) -> None:
        self._store, self._plan, self._name = store, plan, name.encode(errors="replace")
        self._order, self._found = order, found
        self._left = set(missing)  # of which nobody is known to have begun them, or made them
        self._elsewhere: dict[int, _Begun] = {}
        self._mine: set[int] = set()
        self._under_way: dict[int, _Begun] = {}  # of mine
        self._counted_s = _now_s()

    @property
    def num_left(self) -> int:
        """Parts that were missing, and that this driver neither begins nor found made."""
        return len(self._left) + len(self._elsewhere)

    def made(self, index: int) -> None:
        """A part of one's own is committed."""
        self._under_way.pop(index, None)

    def renew(self) -> None:
        """To be called every few seconds, in any thread: what is under way stays one's own."""
        for index, at in list(self._under_way.items()):
            if _now_s() < at.since_s + RENEWED_AFTER * at.term_s:
                continue
            following = _Begun(at.round + 1, _now_s())
            is_mine = self._put(index, following.round)
            if index in self._under_way:  # else it was committed meanwhile
                self._under_way[index] = following
            if not is_mine:  # taken over: whoever is first commits it
                self.made(index)

    def taken(self) -> Iterator[int | Wait]:
        """Parts to make, each claimed, until all that are left are made by somebody."""
        yield from self._unclaimed()
        yield from self._overdue()

    def _unclaimed(self) -> Iterator[int]:
        shards: dict[int, list[int]] = {}
        for index in self._order(self._plan, sorted(self._left)):
            shards.setdefault(index // self._plan.parts_per_shard, []).append(index)
        for shard, parts in shards.items():
            while parts:
                self._look(shard, parts)
                self._keep_count()
                parts = [index for index in parts if index in self._left]
                for index in self._order(self._plan, sorted(parts)):
                    if not self._claim(index, 0):
                        break  # another driver's are from here on
                    yield index
                else:
                    parts = []

    def _look(self, shard: int, parts: Sequence[int]) -> None:
        """Learn in one listing which of these parts are claimed, and in which round."""
        wanted, prefix = set(parts), claim_key(shard, 0).rpartition("/")[0] + "/"
        for info in self._store.scan(prefix):
            if named := re.fullmatch(r"(\d{5,9})(?:_(\d{3,9}))?", info.key.removeprefix(prefix)):
                index = int(named[1])
                if index in wanted and index not in self._mine:
                    self._begun_elsewhere(index, int(named[2] or 0))

    def _overdue(self) -> Iterator[int | Wait]:
        """Of what others have under way, what they may have left behind."""
        while self._elsewhere:
            self._find()
            yield from self._left_behind()
            if self._elsewhere:
                yield from self._until_something_happens(random.choice([*self._elsewhere]))  # noqa: S311

    def _left_behind(self) -> Iterator[int]:
        """Parts that are overdue, until one turns out to have been renewed.

        Of many drivers that wait for many parts, each looks after one shard at a time.
        """
        in_pieces = set(split_parts(self._store))  # some may be there, and others not
        due = [index for index in sorted(self._elsewhere) if self._is_due(index)]
        for index in self._order(self._plan, due):
            if index not in in_pieces and exists(self._store, part_key(index)):
                return  # what has come in the meantime is listed at once
            self._look(index // self._plan.parts_per_shard, [*self._elsewhere])
            if not self._is_due(index) or not self._claim(index, self._elsewhere[index].round + 1):
                return
            yield index

    def _until_something_happens(self, index: int) -> Iterator[Wait]:
        """One part is looked at, not all, and who has it: many drivers may wait for few."""
        at = self._elsewhere[index]
        key = claim_key(index // self._plan.parts_per_shard, index, at.round)
        name = (find(self._store, key, max_bytes=NAME_BYTES) or b"").decode(errors="replace")
        while not is_gone(name):
            yield Wait(self._look_s)
            if any(map(self._is_due, self._elsewhere)) or exists(self._store, part_key(index)):
                return
        self._elsewhere[index] = replace(at, is_left=True)

    def _is_due(self, index: int) -> bool:
        at = self._elsewhere[index]
        return at.is_left or _now_s() >= at.since_s + at.term_s

    @property
    def _look_s(self) -> float:
        waited_s = _now_s() - min(at.since_s for at in self._elsewhere.values())
        return min(max(LOOK_AFTER * waited_s, LEAST_LOOK_S), MOST_LOOK_S)

    def _claim(self, index: int, round: int) -> bool:  # noqa: A002
        """Whether it is this driver's to make now."""
        if not self._put(index, round):
            self._begun_elsewhere(index, round)
            return False
        self._left.discard(index)
        self._elsewhere.pop(index, None)
        self._mine.add(index)
        self._under_way[index] = _Begun(round, _now_s())
        return True

    def _put(self, index: int, round: int) -> bool:  # noqa: A002
        key = claim_key(index // self._plan.parts_per_shard, index, round)
        # After a lost answer the store finds our own.
        return (
            self._store.put_new(key, self._name)
            or find(self._store, key, max_bytes=NAME_BYTES) == self._name
        )

    def _begun_elsewhere(self, index: int, round: int) -> None:  # noqa: A002
        known = self._elsewhere.get(index)
        if known is None or known.round < round:
            self._left.discard(index)
            self._elsewhere[index] = _Begun(round, _now_s())

    def _keep_count(self) -> None:
        """Hear now and then of what others have made, where that costs next to nothing."""
        is_cheap = self._plan.num_parts <= KEYS_OF_ONE_LISTING
        if self._elsewhere and is_cheap and _now_s() >= self._counted_s + COUNTED_EVERY_S:
            self._find()

    def _find(self) -> None:
        """Learn in one listing what others have made."""
        self._counted_s = _now_s()
        missing = set(missing_parts(self._store, self._plan))
        for index in [each for each in self._elsewhere if each not in missing]:
            del self._elsewhere[index]
            self._found(index)


def _now_s() -> float:
    return time.monotonic()
