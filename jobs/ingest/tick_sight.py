"""What `vidray ingest run --metrics` tells of one schedule: its journal, counted.

A journal has the ticks of all who run them. It is counted from when this is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jobs.ingest.schedules import Schedule
from jobs.sight.meters import Meters
from pipeline.metric_table import FOUND_KINDS, TICK_STATES
from pipeline.store.catalogue import State
from pipeline.store.journal import EntryKind, JournalEntry, Why

LATE_S = 300.0  # after its time a tick is late, or counts as missed


@dataclass(slots=True)
class TickSight:
    """Counts; now: Unix time."""

    schedule: Schedule
    meters: Meters
    now: Callable[[], float]
    _since_s: float = field(init=False)
    _begun: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._since_s = self.now()
        for state in TICK_STATES:
            self._count(state, 0)
        for kind in FOUND_KINDS:
            self._find(kind, 0)

    def due(self) -> None:
        """The calendar has come to an instant."""
        self._count("due")

    def look(self, state: State, entries: Sequence[JournalEntry]) -> None:
        """entries: what was appended since the last look, which led to this state."""
        over = {each.tick_s for each in entries if each.kind in (EntryKind.TAKE, EntryKind.SKIP)}
        for entry in entries:
            # Whoever goes on with a batch claims its tick again.
            if entry.kind is not EntryKind.CLAIM or entry.tick_s not in state.ticks - over:
                self._add(entry)
        self._begun &= state.claims.keys()
        claimed = state.claims.keys() - state.ticks
        of_calendar = {each for each in claimed if state.claims[each].why is Why.CRON}
        if not (state.is_paused or self.schedule.paused):
            of_calendar |= self._due(state)
        overdue_s = max(0.0, self.now() - min(of_calendar)) if of_calendar else 0.0
        name = self.schedule.name
        self.meters.set("vidray_waiting_ticks", len(claimed | of_calendar), schedule=name)
        self.meters.set("vidray_tick_overdue_seconds", overdue_s, schedule=name)
        self.meters.set("vidray_batches_under_way", len(state.under_way), schedule=name)

    def _due(self, state: State) -> set[int]:
        """The first instant that nobody was at; of a schedule that never ran the last one."""
        calendar, now_s = self.schedule.calendar, self.now()
        last_s = state.last_cron_s
        if self.schedule.catch_up == "none":  # what was missed before is nobody's
            last_s = max(last_s or 0, int(self._since_s))
        if last_s is None:
            return set(calendar.newest(now_s))
        first = next(calendar.between(last_s, now_s), None)
        return set() if first is None else {first}

    def _add(self, entry: JournalEntry) -> None:
        if entry.kind is EntryKind.CLAIM and entry.tick_s not in self._begun:
            self._begun.add(tick_s := entry.tick_s or 0)
            self._count("begun")
            self._count("late", entry.why is Why.CRON and entry.at_s - tick_s >= LATE_S)
        elif entry.kind is EntryKind.SKIP:
            self._count("skipped")
        elif entry.kind is EntryKind.TAKE:
            self._count("done")
            self._count("missed", entry.missed)
            self._find("new", entry.counts.new)
            self._find("changed", entry.counts.changed)

    def _count(self, state: str, amount: float = 1) -> None:
        self.meters.add("vidray_ticks", amount, schedule=self.schedule.name, state=state)

    def _find(self, kind: str, amount: float) -> None:
        self.meters.add("vidray_found_videos", amount, schedule=self.schedule.name, kind=kind)
