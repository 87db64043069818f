"""An output that many jobs write into, added up from its journal: ticks, videos, what is under way.

Every so many entries the sum is written beside them, so that nobody reads a long journal. It is
derived, like a cache: without it the same comes of the entries.
"""

from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from pipeline.config import MIB
from pipeline.errors import StoreCorrupt
from pipeline.store.below import Below
from pipeline.store.commit import SUCCESS_KEY
from pipeline.store.job_plan import Shard, read_shard
from pipeline.store.journal import (
    JOURNAL_PREFIX,
    EntryKind,
    JournalEntry,
    Why,
    append,
    entry_key,
    job_prefix,
    read_entry,
)
from pipeline.store.objects import ObjectStore, exists, find
from pipeline.store.seen import Seen, Versions, digests

STATE_EVERY = 32  # entries that are read one by one, at most about as many
_STATE, _SEEN = f"{JOURNAL_PREFIX}state-", f"{JOURNAL_PREFIX}seen-"
_MAX_BYTES = 4096 * MIB  # of a sum


@dataclass(frozen=True, slots=True)
class TickClaim:
    """Who is at a tick, since when by their clock."""

    by: str
    at_s: float
    why: Why


@dataclass(slots=True)
class State:
    """All entries up to `number`, but for which videos they took.

    ticks: nominal instants that are taken or skipped. last_cron_s: the latest of the calendar that
    anybody was at. jobs: entries that took videos, and their ticks, in order; under_way: those of
    them that were not finished when somebody last looked. claims: of ticks that are not over.
    hint: the entry of one that no take has followed.
    """

    number: int = 0
    last_take: int = 0
    last_cron_s: int | None = None
    ticks: set[int] = field(default_factory=set)
    jobs: dict[int, int] = field(default_factory=dict)
    under_way: dict[int, int] = field(default_factory=dict)
    claims: dict[int, TickClaim] = field(default_factory=dict)
    is_paused: bool = False
    hint: int | None = None

    def add(self, entry: JournalEntry) -> None:
        """The next one."""
        self.number += 1
        tick_s = entry.tick_s
        if entry.kind in (EntryKind.PAUSE, EntryKind.RESUME):
            self.is_paused = entry.kind is EntryKind.PAUSE
        elif entry.kind is EntryKind.HINT:
            self.hint = self.hint or self.number
        elif tick_s is None:
            raise StoreCorrupt(f"{entry_key(self.number)} names no tick")
        else:
            self._add_tick(entry, tick_s)

    def _add_tick(self, entry: JournalEntry, tick_s: int) -> None:
        if entry.why is Why.CRON:
            self.last_cron_s = max(tick_s, self.last_cron_s or tick_s)
        if entry.kind is EntryKind.CLAIM or entry.num_items:
            self.claims[tick_s] = TickClaim(entry.by, entry.at_s, entry.why)
        else:
            self.claims.pop(tick_s, None)
        if entry.kind in (EntryKind.TAKE, EntryKind.SKIP):
            self.ticks.add(tick_s)
        if entry.kind is EntryKind.TAKE:
            self.last_take = self.number
            if self.hint is not None and self.hint <= entry.since:
                self.hint = None
            if entry.num_items:
                self.jobs[self.number] = self.under_way[self.number] = tick_s


_TO_JSON = TypeAdapter(State)


class Catalogue:
    """The journal of a store, read to its end when it is made."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.state, self._base = _newest_state(store)
        self._seen: Seen | None = None  # up to what is in _later
        self._later: list[Shard] = []
        self.advance()

    def advance(self) -> list[JournalEntry]:
        """Read what was appended since."""
        entries = []
        while (entry := read_entry(self.store, self.state.number + 1)) is not None:
            self._add(entry)
            entries.append(entry)
        return entries

    def append(self, entry: JournalEntry) -> bool:
        """False if somebody else's entry came first: it is read now, so look again."""
        there = append(self.store, self.state.number + 1, entry)
        self._add(there)
        return there.id == entry.id

    @property
    def jobs(self) -> list[ObjectStore]:
        """The outputs of all jobs, the newest rows last."""
        return [self.job(number) for number in self.state.jobs]

    def job(self, number: int) -> ObjectStore:
        """The output of the job that an entry began."""
        return Below(self.store, job_prefix(number, self.state.jobs[number]))

    @property
    def lists(self) -> ObjectStore:
        """Where entries' shards are."""
        return Below(self.store, JOURNAL_PREFIX)

    def look_for_finished(self) -> None:
        """Forget what is under way no more."""
        for number, tick_s in list(self.state.under_way.items()):
            if exists(self.job(number), SUCCESS_KEY):
                del self.state.under_way[number]
                self.state.claims.pop(tick_s, None)

    def seen(self) -> Seen:
        """The newest version of every video that was ever taken."""
        if self._seen is None:
            self._seen = _load_seen(self.store, self._base) if self._base else Seen()
        if self._later:
            tables = (read_shard(self.lists, shard) for shard in self._later)
            later = [
                Versions(digests(table["video_id"].to_pylist()), digests(table["etag"].to_pylist()))
                for table in tables
            ]
            self._seen, self._later = self._seen.with_later(later), []
        return self._seen

    def save(self) -> None:
        """Write the sum, if it would save others much."""
        number = self.state.number
        if number - self._base >= STATE_EVERY:
            self.store.put_new(f"{_SEEN}{number:08d}.parquet", self.seen().to_bytes())
            self.store.put_new(f"{_STATE}{number:08d}.json", _TO_JSON.dump_json(self.state))
            self._base = number

    def _add(self, entry: JournalEntry) -> None:
        self.state.add(entry)
        self._later += entry.shards


def is_catalogue(store: ObjectStore) -> bool:
    """Whether many jobs write into it."""
    return exists(store, entry_key(1))


def _newest_state(store: ObjectStore) -> tuple[State, int]:
    """And its number."""
    keys = [info.key for info in store.scan(_STATE)] if is_catalogue(store) else []
    if not keys:
        return State(), 0
    try:
        state = _TO_JSON.validate_json(_read(store, keys[-1]))
    except ValidationError as error:
        raise StoreCorrupt(f"{store.uri}: {keys[-1]} is no sum of a journal") from error
    return state, state.number


def _load_seen(store: ObjectStore, number: int) -> Seen:
    key = f"{_SEEN}{number:08d}.parquet"
    try:
        return Seen.from_bytes(_read(store, key))
    except ValueError as error:
        raise StoreCorrupt(f"{store.uri}: {key} is {error}") from error


def _read(store: ObjectStore, key: str) -> bytes:
    data = find(store, key, max_bytes=_MAX_BYTES)
    if data is None:
        raise StoreCorrupt(f"{store.uri}: {key} is missing")
    return data
