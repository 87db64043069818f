"""`vidray ingest status`: what was taken, what is under way, what comes next."""

import time
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

from jobs.batch.watch import describe_failures
from jobs.exits import Exit
from jobs.ingest.ingest_commands import open_output
from jobs.ingest.schedules import Schedule, find_schedule, load_schedules
from jobs.ingest.tick import describe, worse
from jobs.printable import printable
from pipeline.store.catalogue import Catalogue
from pipeline.store.journal import EntryKind, JournalEntry, read_entry, tick_name
from pipeline.store.rows import count_newest

SHOWN = 5  # ticks, the newest last; and so many to come


def run(file: Path, name: str | None) -> int:
    """Print; exit code 1 where something was begun and is not finished."""
    schedules = load_schedules(file).values() if name is None else [find_schedule(file, name)]
    code = Exit.OK
    for schedule in schedules:
        code = worse(code, show(schedule, now_s=time.time()))
    return code


def show(schedule: Schedule, *, now_s: float) -> Exit:
    """Of one schedule."""
    catalogue = Catalogue(open_output(schedule))
    catalogue.look_for_finished()
    state = catalogue.state
    is_paused = state.is_paused or schedule.paused
    print(f"{schedule.name}{', paused' if is_paused else ''}")
    print(f"  source  {printable(schedule.source)}")
    print(f"  videos  {len(catalogue.seen()):,}, in {len(state.jobs):,} batches")
    for number, entry in reversed(list(islice(_newest(catalogue), SHOWN))):
        print(f"  {tick_name(entry.tick_s or 0)}  {_said(catalogue, number, entry)}")
    waiting = sorted(state.claims.keys() - state.ticks)
    for tick_s in waiting:
        print(f"  {tick_name(tick_s)}  claimed by {printable(state.claims[tick_s].by)}")
    coming = islice(schedule.calendar.after(now_s), SHOWN)
    moments = (datetime.fromtimestamp(each, schedule.calendar.zone) for each in coming)
    print(f"  next    {', '.join(f'{moment:%Y-%m-%d %H:%M %Z}' for moment in moments)}")
    return Exit.FAILED if state.under_way or waiting else Exit.OK


def _newest(catalogue: Catalogue) -> Iterator[tuple[int, JournalEntry]]:
    """Ticks that are over, the newest first."""
    for number in range(catalogue.state.number, 0, -1):
        entry = read_entry(catalogue.store, number)
        if entry is not None and entry.kind in (EntryKind.TAKE, EntryKind.SKIP):
            yield number, entry


def _said(catalogue: Catalogue, number: int, entry: JournalEntry) -> str:
    if entry.kind is EntryKind.SKIP:
        return "skipped, as other batches were under way"
    if not entry.num_items:
        return describe(entry)
    made = count_newest(catalogue.job(number))
    rows = f"{made.num_rows} of {entry.num_items} rows"
    return f"{describe(entry)}; {rows}, {describe_failures(made.codes, made.result_codes)}"
