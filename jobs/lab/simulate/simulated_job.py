"""A job that many drivers share, in virtual time: plan, claims, parts, commits and jury are real.

A driver's fleet is simulated chunk by chunk where it has a world. Else it is so many places, and a
video holds one for as long as the simulation of such a fleet found; tests/unit/test_simulate.py
shows that both agree. Rows that are committed have an id and nothing else.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pyarrow as pa

from jobs.batch.jury import Jury, MakeRow
from jobs.lab.simulate.simulated_fleet import FETCHED_AHEAD, SimulatedFleet, World, virtually
from jobs.lab.simulate.store import CountingStore, drivers_of
from jobs.lab.simulate.virtual_time import VirtualLoop
from pipeline.analyse import failure
from pipeline.errors import BadInput, FailureCode, Outage
from pipeline.model_identity import ModelIdentity
from pipeline.store.commit import load_success
from pipeline.store.drive import Work, drive
from pipeline.store.items import Item
from pipeline.store.job_plan import JobPlan, JobSpec, PlannedItems, load_plan, open_job
from pipeline.store.slots import Slots
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.types import MediaInfo
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source

FAR_S = 1e9
FAILED_S = 1.0  # that a try takes which fails
PATIENCE_S = 600.0  # of a job, as by default
GONE = "gone"  # the kind of a video that was listed and is not there any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Downtime:
    """While it lasts, whatever this driver tries fails with `code`."""

    begins_s: float
    ends_s: float
    code: FailureCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A driver and its fleet: a world, or places and how long a video of a kind holds one.

    joins_s: when it begins. leaves_s: when it is killed, with all that it had under way.
    """

    places: int = 0
    held_s: Mapping[str, float] = field(default_factory=dict)
    world: World | None = None
    joins_s: float = 0.0
    leaves_s: float = FAR_S
    downtimes: Sequence[Downtime] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """What came of it. made: rows that were computed, committed or not. codes: of failed rows.

    work_s: place-seconds that the job's videos need once; made_s: that were spent on whole rows.
    num_stopped: drivers that lost patience with what failed everybody.
    """

    seconds: float
    num_videos: int
    num_rows: int
    made: int
    work_s: float
    made_s: float
    codes: Counter[str]
    num_stopped: int
    requests: Counter[str]
    busiest_second: int

    @property
    def waste(self) -> float:
        """Of the work that was done, what had been done before."""
        return max(0.0, 1 - self.work_s / self.made_s)


def simulate_job(
    kinds: Sequence[str],
    drivers: Sequence[Driver],
    *,
    media: Mapping[str, MediaInfo] | None = None,
    videos_per_part: int = 64,
    latency_s: float = 0.03,
    seed: int = 0,
) -> JobRun:
    """Run a job of videos of these kinds to its success marker. media: of kinds, for worlds."""
    loop = VirtualLoop()
    store = CountingStore(loop.time, latency_s=latency_s)
    random.seed(seed)  # of the drivers' own orders
    job = _Job(store, kinds, media or {}, loop)

    async def run() -> float:
        plan = _plan(store, len(kinds), videos_per_part)
        with drivers_of(store):
            await asyncio.gather(*(job.drive(plan, each) for each in drivers))
        return loop.time()

    seconds = virtually(run(), loop)
    weights = next((each.held_s for each in drivers if each.held_s), {})
    weight = [weights.get(kind, 1.0) for kind in kinds]
    return JobRun(
        seconds=seconds,
        num_videos=len(kinds),
        num_rows=_num_rows(store),
        made=job.made.total(),
        work_s=sum(weight),
        made_s=sum(weight[number] * count for number, count in job.made.items()),
        codes=Counter(code for code in job.codes.values() if code is not None),
        num_stopped=job.num_stopped,
        requests=store.requests,
        busiest_second=store.busiest_second,
    )


class _Job:
    """What its drivers have in common."""

    def __init__(
        self,
        store: CountingStore,
        kinds: Sequence[str],
        media: Mapping[str, MediaInfo],
        loop: VirtualLoop,
    ) -> None:
        self._store, self._kinds, self._media, self._loop = store, kinds, media, loop
        self.made: Counter[int] = Counter()
        self.codes: dict[int, str | None] = {}
        self.num_stopped = 0

    async def drive(self, plan: JobPlan, driver: Driver) -> None:
        """One driver, from when it joins until the job is done or it is killed."""
        await asyncio.sleep(driver.joins_s)
        planned = PlannedItems(self._store, plan)
        witnesses = (item for index in range(plan.num_parts) for item in planned.part(index))
        slots = Slots(_num_at_once(driver))
        jury = Jury(self._tries(driver), slots=slots, patience_s=PATIENCE_S, witnesses=witnesses)

        async def make_row(item: Item) -> Record:
            record = await jury.make_row(item)
            self.made[int(item.uri)] += 1
            self.codes[int(item.uri)] = record.code
            return record

        work: Work[Record] = Work(
            make_row=make_row,
            to_table=lambda rows: pa.table({"video_id": [row.video_id for row in rows]}),
            slots=slots,
            gets_on=lambda: jury.down is None,
        )
        driving = asyncio.create_task(drive(self._store, plan, work))
        await asyncio.wait({driving}, timeout=driver.leaves_s - driver.joins_s)
        if not driving.done():
            driving.cancel()
        with suppress(asyncio.CancelledError):
            try:
                await driving
            except Outage:
                self.num_stopped += 1

    def _tries(self, driver: Driver) -> MakeRow:
        """One try of a video on this driver's fleet."""
        fleet: SimulatedFleet | None = None
        if driver.world is not None:
            fleet = SimulatedFleet(driver.world, self._media, PlanOptions(), self._loop)

        async def make_row(item: Item) -> Record:
            kind, now_s = self._kinds[int(item.uri)], self._loop.time()
            down = (each.code for each in driver.downtimes if each.begins_s <= now_s < each.ends_s)
            code = FailureCode.NOT_FOUND if kind == GONE else next(down, None)
            if code is not None:
                await asyncio.sleep(FAILED_S)
                return replace(_GOOD, video_id=item.video_id, uri=item.uri, status="failed",
                               code=code, detail="simulated")  # fmt: skip
            if fleet is not None:
                source = Source(uri=kind, path=cast(Any, None))
                return await fleet.analyse(source, Tasks(), video_id=item.video_id)
            await asyncio.sleep(driver.held_s[kind])
            return replace(_GOOD, video_id=item.video_id, uri=item.uri)

        return make_row


def _num_at_once(driver: Driver) -> int:
    if driver.world is None:
        return driver.places
    return driver.world.profile.videos_in_flight + FETCHED_AHEAD


_GOOD = replace(
    failure(
        Source(uri="simulated", path=cast(Any, None)),
        Tasks(),
        ModelIdentity("simulated", ""),
        video_id="",
        error=BadInput(FailureCode.NOT_FOUND, ""),
    ),
    status="ok",
    code=None,
    detail=None,
)


def _plan(store: CountingStore, num_videos: int, videos_per_part: int) -> JobPlan:
    spec = JobSpec(source="/", model_digest="", config="{}", items_per_part=videos_per_part)
    return open_job(store, spec, (Item(uri=str(number)) for number in range(num_videos)))


def _num_rows(store: CountingStore) -> int:
    """Rows that the success marker lists."""
    plan, parts = load_plan(store), load_success(store)
    if plan is None or parts is None:
        raise RuntimeError("the job did not come to its end")
    return sum(part.num_rows for part in parts)
