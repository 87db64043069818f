"""One tick: claimed, its videos taken, its batch made; each once, whoever runs it, however often.

docs/ingest.md is the contract: what is written where, and what is left by whom dies when.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count, islice

from jobs.batch.job import Job
from jobs.exits import Exit
from jobs.ingest.batches import Batches
from jobs.ingest.duckdb_view import VIEW_KEY, views_of
from jobs.ingest.renewing import RENEWALS_PER_LEASE, Renewing, in_background
from jobs.ingest.schedules import Schedule
from jobs.ingest.taking import Take, differing
from pipeline.errors import StoreCorrupt, VidrayError
from pipeline.life import here, is_gone
from pipeline.store.catalogue import Catalogue, TickClaim
from pipeline.store.commit import PART_PREFIX
from pipeline.store.items import Item, table_to_items
from pipeline.store.job_plan import read_shard, write_shards
from pipeline.store.journal import Counts, EntryKind, JournalEntry, Why, read_entry, tick_name
from pipeline.store.objects import ObjectStore
from pipeline.store.passed_over import PassedOver

LOOK_EVERY_S = 15.0  # for room, while queued
MOST_MISSED = 10_000  # that are counted


class TickPoint(StrEnum):
    """Where a scheduler may die, in the order of a tick. Tests kill one at each."""

    STARTED = "started"
    CLAIMED = "claimed"
    LISTED = "listed"
    TAKEN = "taken"
    SUBMITTED = "submitted"
    MADE = "made"


Checkpoint = Callable[[TickPoint], None]


def pass_by(point: TickPoint) -> None:
    """The checkpoint of every tick that is not a test."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A nominal instant, Unix time. missed: how many before it nobody was there for."""

    tick_s: int
    why: Why = Why.CRON
    missed: int = 0

    @property
    def name(self) -> str:
        return tick_name(self.tick_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticker:
    """Runs ticks of one schedule. now: Unix time. told: hears what is done, for people."""

    schedule: Schedule
    store: ObjectStore
    batches: Batches
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    told: Callable[[str], None] = print
    checkpoint: Checkpoint = pass_by
    renewing: Renewing = in_background
    by: str = field(default_factory=here)

    def run(self, asked: Sequence[int] | None = None, *, only_resume: bool = False) -> Exit:
        """What was left lying, then what is due, or else the instants asked for.

        A batch that cannot be gone on with holds up nothing: the worst exit code is returned.
        """
        catalogue = Catalogue(self.store)
        if self.schedule.paused or catalogue.state.is_paused:
            self.told("paused")
            return Exit.OK
        if not catalogue.state.number:
            self.store.put_new(VIEW_KEY, views_of(self.store.uri).encode(errors="replace"))
        self.checkpoint(TickPoint.STARTED)
        code = self._go_on(catalogue)
        if only_resume:
            return code
        ticks = self.due(catalogue) if asked is None else [Tick(each, Why.ASKED) for each in asked]
        left = self._left_claimed(catalogue)
        for tick in {each.tick_s: each for each in [*left, *ticks]}.values():
            code = worse(code, self._run(catalogue, tick))
        if not left and not ticks:
            self.told("nothing is due")
        return code

    def due(self, catalogue: Catalogue) -> list[Tick]:
        """Of the calendar, as many as are caught up; else one for a hint."""
        now_s, last_s = self.now(), catalogue.state.last_cron_s
        calendar = self.schedule.calendar
        newest = calendar.newest(now_s, self.schedule.num_caught_up if last_s is not None else 1)
        due = [each for each in newest if last_s is None or each > last_s]
        if due and last_s is not None:
            missed = sum(1 for _ in islice(calendar.between(last_s, due[0] - 1), MOST_MISSED))
            return [Tick(due[0], missed=missed), *map(Tick, due[1:])]
        if not due and catalogue.state.hint is not None and self._has_room(catalogue):
            free = (each for each in count(int(now_s)) if each not in catalogue.state.ticks)
            return [Tick(next(free), Why.HINT)]
        return list(map(Tick, due))

    def preview(self, passed_over: PassedOver) -> tuple[Take, Iterator[tuple[Item, bool]]]:
        """What a tick would take now, and whether each was never seen.

        Nothing is written, and nobody waits until files settle.
        """
        job = self.schedule.batch(0, 0)
        take = Take(Catalogue(self.store).seen(), limit=job.limit)
        return take, take.marked(self.batches.listed(job, passed_over))

    def require(self, catalogue: Catalogue, job: Job) -> None:
        """ConfigError for what would stop the batch of a tick before its first video."""
        self.batches.require(job, like=next(reversed(catalogue.jobs), None))

    def _left_claimed(self, catalogue: Catalogue) -> list[Tick]:
        """Ticks that somebody was at and is no more."""
        claims = sorted(catalogue.state.claims.items())
        left = [(tick_s, claim) for tick_s, claim in claims if tick_s not in catalogue.state.ticks]
        return [Tick(tick_s, claim.why) for tick_s, claim in left if self._is_over(claim)]

    def _run(self, catalogue: Catalogue, tick: Tick) -> Exit:
        if not self._claim(catalogue, tick):
            self.told(f"{tick.name}: somebody else has it, or had it")
            return Exit.OK
        with self._kept(tick):
            return self._run_claimed(catalogue, tick)

    def _run_claimed(self, catalogue: Catalogue, tick: Tick) -> Exit:
        """Wait for room or skip it, take its videos, make its batch."""
        self.checkpoint(TickPoint.CLAIMED)
        taken: JournalEntry | None = None
        while tick.tick_s not in catalogue.state.ticks:
            if not self._has_room(catalogue):
                if self.schedule.overlap == "skip":
                    if catalogue.append(self._entry(EntryKind.SKIP, tick)):
                        self.told(f"{tick.name}: skipped, as other batches are under way")
                        return Exit.OK
                    continue
                self.sleep(LOOK_EVERY_S)
                catalogue.advance()
                continue
            if taken is None or taken.since < catalogue.state.last_take:
                taken = self._list(catalogue, tick)
                self.checkpoint(TickPoint.LISTED)
            if catalogue.append(taken):
                self.checkpoint(TickPoint.TAKEN)
                catalogue.save()
                self.told(f"{tick.name}: {describe(taken)}")
                return self._make(catalogue, catalogue.state.number, tick, taken)
        self.told(f"{tick.name}: somebody else was faster")
        return Exit.OK

    def _claim(self, catalogue: Catalogue, tick: Tick) -> bool:
        """False where the tick is over, or somebody is at it."""
        while tick.tick_s not in catalogue.state.ticks:
            claim = catalogue.state.claims.get(tick.tick_s)
            if claim is not None and not self._is_over(claim):
                return False
            if catalogue.append(self._entry(EntryKind.CLAIM, tick)):
                return True
        return False

    def _kept(self, tick: Tick) -> AbstractContextManager[None]:
        """While entered its claim is renewed, until another took it over."""
        journal: list[Catalogue] = []  # one of its own, read once it is needed

        def renew() -> bool:
            catalogue = journal[0] if journal else Catalogue(self.store)
            journal[:] = [catalogue]
            catalogue.advance()
            while self._holds(catalogue, tick):
                if catalogue.append(self._entry(EntryKind.CLAIM, tick)):
                    return True
            return False

        return self.renewing(renew, self.schedule.lease_s / RENEWALS_PER_LEASE)

    def _holds(self, catalogue: Catalogue, tick: Tick) -> bool:
        claim = catalogue.state.claims.get(tick.tick_s)
        return claim is not None and claim.by == self.by

    def _has_room(self, catalogue: Catalogue) -> bool:
        catalogue.look_for_finished()
        numbers = catalogue.state.under_way
        active = sum(not self._is_left(catalogue, number) for number in numbers)
        return active < self.schedule.max_active

    def _list(self, catalogue: Catalogue, tick: Tick) -> JournalEntry:
        """Write down what the tick would take; it is the tick's once the entry is appended."""
        since, seen = catalogue.state.number, catalogue.seen()
        passed_over, job = PassedOver(), self.schedule.batch(0, tick.tick_s)
        settled = None
        if self.schedule.is_settling:
            settled = differing(self.batches.listed(job, PassedOver()), seen)
            if len(settled):
                self.sleep(self.schedule.settle_s)
        take = Take(seen, settled=settled, limit=job.limit)
        written = write_shards(
            catalogue.lists,
            take.of(self.batches.listed(job, passed_over)),
            items_per_part=job.videos_per_part,
            source=self.schedule.source,
        )
        shards = tuple(shard for shard, _ in written)
        if shards:
            self.require(catalogue, job)
        return replace(
            self._entry(EntryKind.TAKE, tick),
            since=since,
            shards=shards,
            counts=take.counts,
            passed_over=dict(passed_over),
            job=job.model_dump(mode="json", by_alias=True, exclude_unset=True),
        )

    def _go_on(self, catalogue: Catalogue) -> Exit:
        """Finish what others left: batches that show no sign of life."""
        code = Exit.OK
        catalogue.look_for_finished()
        for number, tick_s in list(catalogue.state.under_way.items()):
            entry = read_entry(self.store, number)
            if entry is None:
                raise StoreCorrupt(f"{self.store.uri}: entry {number} was there and is gone")
            tick = Tick(tick_s, entry.why)
            while is_ours := self._is_left(catalogue, number):
                if catalogue.append(self._entry(EntryKind.CLAIM, tick)):
                    break
            if is_ours:
                self.told(f"{tick.name}: going on with {entry.num_items} videos")
                try:
                    with self._kept(tick):
                        code = worse(code, self._make(catalogue, number, tick, entry))
                except VidrayError as error:
                    self.told(f"{tick.name}: {error}")
                    code = Exit.FAILED
        return code

    def _make(self, catalogue: Catalogue, number: int, tick: Tick, taken: JournalEntry) -> Exit:
        """The batch of an entry; its plan is written first, or found."""
        if not taken.num_items:
            return Exit.OK
        items = (
            item
            for shard in taken.shards
            for item in table_to_items(read_shard(catalogue.lists, shard))
        )
        job = self.schedule.batch(number, tick.tick_s, taken.job)
        self.batches.submit(job, items, taken.passed_over)
        self.checkpoint(TickPoint.SUBMITTED)
        code = self.batches.run(job, self.schedule.submit)
        self.checkpoint(TickPoint.MADE)
        return code

    def _is_left(self, catalogue: Catalogue, number: int) -> bool:
        """Nobody seems to be at this batch: neither its claim nor its newest part is young."""
        claim = catalogue.state.claims.get(catalogue.state.under_way[number])
        if claim is not None and not self._is_over(claim):
            return False
        parts = catalogue.job(number).scan(PART_PREFIX)
        return self._is_old(max((part.modified_s for part in parts), default=0.0))

    def _is_over(self, claim: TickClaim) -> bool:
        return self._is_old(claim.at_s) or is_gone(claim.by)

    def _is_old(self, at_s: float) -> bool:
        return self.now() - at_s > self.schedule.lease_s

    def _entry(self, kind: EntryKind, tick: Tick) -> JournalEntry:
        return JournalEntry(
            kind=kind,
            at_s=self.now(),
            by=self.by,
            tick_s=tick.tick_s,
            why=tick.why,
            missed=tick.missed,
        )


def describe(taken: JournalEntry) -> str:
    """What a tick took, as people read it."""
    missed = f"; {taken.missed:,} ticks before it were missed" if taken.missed else ""
    return describe_counts(taken.counts) + missed


def describe_counts(counts: Counts) -> str:
    """What a listing found, likewise."""
    parts = [f"{counts.new:,} new", f"{counts.changed:,} changed"]
    parts += [f"{counts.unsettled:,} still being written"] * bool(counts.unsettled)
    parts += [f"{counts.beyond:,} left for later"] * bool(counts.beyond)
    parts += [f"{counts.deleted:,} gone"] * bool(counts.deleted)
    return f"{', '.join(parts)} of {counts.listed:,} listed"


def worse(one: Exit, other: Exit) -> Exit:
    """A failure, then failed rows, then none."""
    order = (Exit.OK, Exit.SOME_FAILED, Exit.MISUSED, Exit.FAILED)
    return max(one, other, key=order.index)
