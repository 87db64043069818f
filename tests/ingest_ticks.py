"""Ticks with a clock, a listing and a store of the test's: rows are video ids and who made them."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jobs.batch.job import Job
from jobs.exits import Exit
from jobs.ingest.schedules import Schedule
from jobs.ingest.tick import Checkpoint, Ticker, TickPoint, pass_by
from pipeline.store.below import Below
from pipeline.store.catalogue import Catalogue
from pipeline.store.commit import Part, commit_part, finish, load_success, missing_parts
from pipeline.store.items import Item
from pipeline.store.job_plan import PlannedItems, load_plan, open_job
from pipeline.store.objects import ObjectStore
from pipeline.store.passed_over import PassedOver
from tests.batch_driver import SPEC, make_rows, planned_ids
from tests.stores import MemoryStore

OUT = "/rows"
DAY_S = 86_400


@dataclass
class FakeClock:
    """The store's time, that a test moves; skew_s: how wrong the clock is that somebody reads."""

    store: MemoryStore
    alarms: list["Alarm"] = field(default_factory=list)

    def read(self, skew_s: float = 0.0) -> Callable[[], float]:
        return lambda: self.store.now_s + skew_s

    def sleep(self, seconds: float) -> None:
        """Alarms ring on the way, but none while it is being heard."""
        stop_s = self.store.now_s + seconds
        while due := [each for each in self.alarms if each.is_set and each.at_s <= stop_s]:
            alarm = min(due, key=lambda each: each.at_s)
            self.store.now_s = max(self.store.now_s, alarm.at_s)
            alarm.ring()
        self.store.now_s = max(self.store.now_s, stop_s)

    @contextmanager
    def ringing(self, call: Callable[[], bool], every_s: float) -> Iterator[None]:
        """As in_background: until it says False, or this is left."""
        alarm = Alarm(call, every_s, self.store.now_s + every_s)
        self.alarms.append(alarm)
        try:
            yield
        finally:
            self.alarms.remove(alarm)


@dataclass(eq=False)
class Alarm:
    call: Callable[[], bool]
    every_s: float
    at_s: float
    is_set: bool = True

    def ring(self) -> None:
        self.is_set, self.at_s = False, self.at_s + self.every_s
        self.is_set = self.call()


@dataclass
class FakeBatches:
    """Batches over the videos in `listing`, as name: etag, made at once, or left under way."""

    store: ObjectStore
    listing: dict[str, str] = field(default_factory=dict)
    is_leaving: bool = False  # what is submitted stays under way
    sleep: Callable[[float], None] = lambda seconds: None
    listing_s: float = 0.0  # that a listing takes
    making_s: float = 0.0  # and a batch

    def listed(self, job: Job, passed_over: PassedOver) -> Iterator[Item]:
        listing = sorted(self.listing.items())
        self.sleep(self.listing_s)
        for name, etag in listing:
            yield Item(uri=f"/clips/{name}", etag=etag, size_bytes=1)

    def require(self, job: Job, *, like: ObjectStore | None) -> None:
        """Nothing is wrong with it."""

    def submit(self, job: Job, items: Iterable[Item], passed_over: Mapping[str, int]) -> None:
        open_job(self._out(job), SPEC, items, job_id=job.job_id)

    def run(self, job: Job, address: str | None) -> Exit:
        self.sleep(self.making_s)
        if not self.is_leaving:
            make(self._out(job))
        return Exit.OK

    def _out(self, job: Job) -> ObjectStore:
        return Below(self.store, f"{job.out.removeprefix(OUT).strip('/')}/")


def make(store: ObjectStore) -> None:
    """All missing rows of a job that has a plan."""
    plan, attempt = load_plan(store), uuid.uuid4().hex
    assert plan is not None
    for index in missing_parts(store, plan):
        items = PlannedItems(store, plan).part(index)
        ids = tuple(item.video_id for item in items)
        part = Part(job_id=plan.job_id, index=index, video_ids=ids, attempt=attempt)
        commit_part(store, part, make_rows(items, attempt=attempt))
    finish(store, plan, sha256s={})


def schedule(**fields: Any) -> Schedule:
    given = {"name": "s", "cron": "@hourly", "source": "s3://in/clips", "out": OUT}
    return Schedule.model_validate(given | fields)


@dataclass
class World:
    """One output, and whoever ticks at it."""

    schedule: Schedule = field(default_factory=schedule)
    store: MemoryStore = field(default_factory=MemoryStore)
    said: list[str] = field(default_factory=list)
    clock: FakeClock = field(init=False)
    batches: FakeBatches = field(init=False)

    def __post_init__(self) -> None:
        self.clock = FakeClock(self.store)
        self.batches = FakeBatches(self.store, sleep=self.clock.sleep)

    def ticker(
        self, by: str = "a", *, skew_s: float = 0.0, checkpoint: Checkpoint = pass_by
    ) -> Ticker:
        return Ticker(
            schedule=self.schedule,
            store=self.store,
            batches=self.batches,
            now=self.clock.read(skew_s),
            sleep=self.clock.sleep,
            told=self.said.append,
            checkpoint=checkpoint,
            renewing=self.clock.ringing,
            by=by,
        )

    def at(self, time_s: float) -> "World":
        """Move the clock there."""
        self.store.now_s = time_s
        return self

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.store)

    @property
    def taken(self) -> list[tuple[str, str | None]]:
        """Every version of every video in any batch, as often as it is there."""
        return [
            (item.uri.removeprefix("/clips/"), item.etag)
            for job in self.catalogue.jobs
            for item in planned(job)
        ]

    def assert_whole(self) -> None:
        """Every batch is finished, and has a row per planned video."""
        for job in self.catalogue.jobs:
            assert load_success(job) is not None
            assert planned_ids(job)


def planned(job: ObjectStore) -> Iterator[Item]:
    plan = load_plan(job)
    assert plan is not None
    for index in range(plan.num_parts):
        yield from PlannedItems(job, plan).part(index)


class Killed(BaseException):
    """Of a scheduler: nothing of it runs any more."""


def dies_at(point: TickPoint) -> Checkpoint:
    def checkpoint(here: TickPoint) -> None:
        if here is point:
            raise Killed

    return checkpoint
