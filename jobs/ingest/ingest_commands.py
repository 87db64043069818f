"""`vidray ingest tick, backfill, pause, resume`."""

import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from jobs.batch.output import naming
from jobs.exits import Exit
from jobs.ingest.batches import RealBatches
from jobs.ingest.schedules import Schedule, find_schedule
from jobs.ingest.tick import Ticker, describe_counts
from jobs.printable import printable
from pipeline.errors import ConfigError
from pipeline.life import here
from pipeline.store.catalogue import Catalogue, is_catalogue
from pipeline.store.job_plan import PLAN_KEY
from pipeline.store.journal import EntryKind, JournalEntry, tick_name
from pipeline.store.objects import ObjectStore, exists
from pipeline.store.open import open_store
from pipeline.store.passed_over import PassedOver, describe_passed_over
from pipeline.store.s3_config import S3Config

MOST_TICKS = 10_000  # of one backfill


def tick(file: Path, name: str, *, at: str | None, resume: bool) -> int:
    """Run it; returns the exit code of its batches."""
    schedule = find_schedule(file, name)
    asked = None if at is None else [int(instant(at, schedule))]
    if asked and asked[0] > time.time():
        raise ConfigError(f"--at {at}: a tick that is past, or now")
    return ticker_of(schedule).run(asked, only_resume=resume)


def preview(file: Path, name: str) -> int:
    """Print what a tick would take now, and in how many parts; ConfigError where it could not."""
    schedule = find_schedule(file, name)
    ticker, job, passed_over = ticker_of(schedule), schedule.batch(0, 0), PassedOver()
    take, items = ticker.preview(passed_over)
    for item, is_new in items:
        print(printable(f"{'new' if is_new else 'changed'} {item.uri}"))
    print(describe_counts(take.counts))
    if passed_over:
        print(describe_passed_over(passed_over))
    if num_taken := take.counts.new + take.counts.changed:
        ticker.require(Catalogue(ticker.store), job)
        num_parts = -(-num_taken // job.videos_per_part)
        parts = f"{num_parts:,} part{'s' * (num_parts != 1)} of {job.videos_per_part:,}"
        print(f"a batch of {num_taken:,} video{'s' * (num_taken != 1)} in {parts}")
    return Exit.OK


def backfill(file: Path, name: str, *, start: str, stop: str, dry_run: bool) -> int:
    """Run the calendar's ticks from start to stop that are in no entry."""
    schedule = find_schedule(file, name)
    ticker = ticker_of(schedule)
    first_s, last_s = instant(start, schedule), instant(stop, schedule)
    if last_s < first_s or last_s > time.time():
        raise ConfigError(f"--from {start} --to {stop}: a span that is past, the first one first")
    done = Catalogue(ticker.store).state.ticks
    ticks = [each for each in _span(schedule, first_s, last_s) if each not in done]
    if dry_run:
        for each in ticks:
            print(tick_name(each))
    print(f"{len(ticks)} ticks that nobody ran")
    return ticker.run(ticks) if ticks and not dry_run else Exit.OK


def pause(file: Path, name: str, *, is_paused: bool) -> int:
    """Write it to the journal, where every scheduler reads it."""
    schedule = find_schedule(file, name)
    catalogue = Catalogue(open_output(schedule))
    kind = EntryKind.PAUSE if is_paused else EntryKind.RESUME
    while catalogue.state.is_paused is not is_paused:
        catalogue.append(JournalEntry(kind=kind, at_s=time.time(), by=here()))
    by_file = "; its file pauses it, too" if schedule.paused and not is_paused else ""
    print(f"{name}: {'paused' if is_paused else 'resumed'}{by_file}")
    return Exit.OK


def ticker_of(schedule: Schedule) -> Ticker:
    """Of the store and the jobs that a schedule names."""
    return Ticker(
        schedule=schedule,
        store=open_output(schedule),
        batches=RealBatches(),
        told=lambda text: print(printable(text), flush=True),
    )


def open_output(schedule: Schedule) -> ObjectStore:
    """ConfigError where it is a single job's."""
    store = open_store(schedule.out, S3Config.from_environment(os.environ))
    with naming("output"):
        if not is_catalogue(store) and exists(store, PLAN_KEY):
            raise ConfigError(f"{schedule.out} is the output of a job; choose another for ticks")
    return store


def instant(text: str, schedule: Schedule) -> float:
    """Unix time of "now", or an ISO date or time, by the schedule's clocks if it names no zone."""
    if text == "now":
        return time.time()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no time, as 2026-11-28T00:30:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=schedule.calendar.zone)
    return moment.timestamp()


def _span(schedule: Schedule, first_s: float, last_s: float) -> Iterator[int]:
    for number, each in enumerate(schedule.calendar.between(first_s - 1, last_s)):
        if number == MOST_TICKS:
            raise ConfigError(f"a backfill has at most {MOST_TICKS} ticks; choose a shorter span")
        yield each
