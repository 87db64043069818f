"""What happened to an output that many jobs write into: numbered entries, one after the other.

An entry is created under the number after the last one. So all have one order, whoever writes, and
whoever has not read the last finds its number taken: a put of the store decides every race.
Covered: writers that die anywhere; a put whose answer was lost (an entry knows its own id).
Not covered: whoever deletes entries by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import StoreCorrupt
from pipeline.settings import explain
from pipeline.store.job_plan import Shard
from pipeline.store.objects import ObjectStore, find

JOURNAL_PREFIX = "journal/"
JOBS_PREFIX = "jobs/"
TICK_FORMAT = "%Y%m%dT%H%M%SZ"


class EntryKind(StrEnum):
    """What an entry says."""

    CLAIM = "claim"  # somebody is at this tick
    TAKE = "take"  # these videos are this tick's
    SKIP = "skip"  # there was no room for it
    HINT = "hint"  # something may be new
    PAUSE = "pause"
    RESUME = "resume"


class Why(StrEnum):
    """Where a tick comes from."""

    CRON = "cron"
    HINT = "hint"
    ASKED = "asked"  # by name, or a backfill


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a listing found. listed: all; the others are parts of it, but for deleted.

    unsettled: still being written; beyond: more than a tick may take. Both are left for the next.
    """

    listed: int = 0
    new: int = 0
    changed: int = 0
    unsettled: int = 0
    beyond: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One line of the journal. at_s: Unix time by the clock of whoever wrote it.

    tick_s: the nominal instant of its tick, Unix time. missed: ticks before it that nobody was
    there for. since: how long the journal was when a take's listing began. job: the settings of its
    batch; shards: its videos, below JOURNAL_PREFIX.
    """

    kind: EntryKind
    at_s: float
    by: str
    tick_s: int | None = None
    why: Why = Why.CRON
    missed: int = 0
    since: int = 0
    job: Mapping[str, Any] = field(default_factory=dict, hash=False)
    shards: tuple[Shard, ...] = ()
    counts: Counts = Counts()
    passed_over: Mapping[str, int] = field(default_factory=dict, hash=False)
    id: str = field(default_factory=lambda: uuid4().hex)

    @property
    def num_items(self) -> int:
        return sum(shard.num_items for shard in self.shards)


_ENTRY = TypeAdapter(JournalEntry)


def entry_key(number: int) -> str:
    return f"{JOURNAL_PREFIX}{number:08d}.json"


def job_prefix(number: int, tick_s: int) -> str:
    """Where the batch of a take is; later entries sort later."""
    return f"{JOBS_PREFIX}{number:08d}-{tick_name(tick_s)}/"


def tick_name(tick_s: int) -> str:
    """A nominal instant, as in 20261128T003000Z."""
    return datetime.fromtimestamp(tick_s, UTC).strftime(TICK_FORMAT)


def read_entry(store: ObjectStore, number: int) -> JournalEntry | None:
    """None where the journal is not as long."""
    data = find(store, entry_key(number))
    if data is None:
        return None
    try:
        return _ENTRY.validate_json(data)
    except ValidationError as error:
        raise StoreCorrupt(
            f"{store.uri}: {entry_key(number)} is no entry: {explain(error)}"
        ) from error


def append(store: ObjectStore, number: int, entry: JournalEntry) -> JournalEntry:
    """The entry that has this number from now on: this one, or that of whoever was faster."""
    store.put_new(entry_key(number), _ENTRY.dump_json(entry, indent=1))
    there = read_entry(store, number)
    if there is None:
        raise StoreCorrupt(f"{store.uri}: {entry_key(number)} was written and is not there")
    return there
