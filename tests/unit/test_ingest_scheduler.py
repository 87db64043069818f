"""The scheduler starts a tick at each instant, whatever runs long, was missed, or is hinted at."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from jobs.ingest.ingest_scheduler import LOOK_EVERY_S, Hinted, keep_all, watch_journal
from jobs.ingest.schedules import Schedule
from jobs.ingest.tick import TickPoint
from jobs.ingest.tick_sight import TickSight
from jobs.sight.meters import Meters
from jobs.sight.samples import MetricSamples
from pipeline.store.journal import EntryKind, JournalEntry
from pipeline.store.objects import ObjectStore
from tests.ingest_ticks import Killed, World, dies_at, make, schedule
from tests.virtual_time import run_virtually

HOUR_S = 3600
T0 = 1_800_000_000 // HOUR_S * HOUR_S

Starts = list[tuple[float, bool]]


def never(sight: TickSight, store: ObjectStore) -> Hinted:
    async def look() -> bool:
        return False

    return look


def starts(
    kept: Schedule,
    *,
    hours: float,
    lasts_s: float = 0.0,
    watch: Callable[[TickSight, ObjectStore], Hinted] = never,
) -> Starts:
    """When ticks are started from half past on, in seconds after T0, and whether only to go on."""
    found: Starts = []

    async def keep() -> None:
        loop = asyncio.get_running_loop()

        async def start(each: Schedule, only_resume: bool) -> None:
            found.append((HOUR_S / 2 + loop.time(), only_resume))
            await asyncio.sleep(lasts_s)

        with suppress(TimeoutError):
            async with asyncio.timeout(hours * HOUR_S):
                await keep_all(
                    {"s": kept},
                    {"s": World().store},
                    start=start,
                    meters=Meters("ingest"),
                    now=lambda: T0 + HOUR_S / 2 + loop.time(),
                    watch=watch,
                )

    run_virtually(keep())
    return found


def test_every_instant_starts_a_tick_and_the_start_looks_for_what_was_missed() -> None:
    found = starts(schedule(), hours=3)
    assert [round(time_s) for time_s, _ in found] == [1800, 3600, 7200, 10_800]
    assert not any(only_resume for _, only_resume in found)


def test_without_catching_up_the_start_only_goes_on_with_what_lies_there() -> None:
    found = starts(schedule(catch_up="none"), hours=2)
    assert [only_resume for _, only_resume in found] == [True, False, False]


def test_ticks_that_run_long_are_never_more_than_one_beyond_their_room() -> None:
    found = starts(schedule(cron="* * * * *"), hours=2, lasts_s=2.5 * HOUR_S)
    assert len(found) == 2
    found = starts(schedule(cron="* * * * *", max_active=3), hours=2, lasts_s=2.5 * HOUR_S)
    assert len(found) == 4


def test_a_hint_starts_a_tick_within_seconds() -> None:
    looks = []

    async def look() -> bool:
        looks.append(1)
        return len(looks) == 3

    found = starts(schedule(), hours=0.4, watch=lambda sight, store: look)
    assert [round(time_s) for time_s, _ in found] == [1800, 1800 + 3 * round(LOOK_EVERY_S)]


@pytest.mark.parametrize("skew_s", [-600, 0, 600])
def test_two_schedulers_whose_clocks_differ_make_each_tick_once(skew_s: float) -> None:
    world = World(schedule(lease_s=10 * HOUR_S)).at(T0)
    minutes = [0]

    async def keep(by: str, skew_s: float) -> None:
        loop = asyncio.get_running_loop()

        async def start(each: Schedule, only_resume: bool) -> None:
            world.at(T0 + 1 + loop.time())
            minutes[0] += 1
            world.batches.listing[f"{minutes[0]}.mp4"] = "1"
            world.ticker(by, skew_s=skew_s).run(only_resume=only_resume)

        await keep_all(
            {"s": world.schedule},
            {"s": world.store},
            start=start,
            meters=Meters("ingest"),
            now=lambda: T0 + 1 + skew_s + loop.time(),
            watch=never,
        )

    async def both() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(5.5 * HOUR_S), asyncio.TaskGroup() as group:
                group.create_task(keep("a", 0.0))
                group.create_task(keep("b", skew_s))

    run_virtually(both())
    ticks = sorted(world.catalogue.state.ticks)
    wanted = {T0 + hour * HOUR_S for hour in range(6)} | ({T0 - HOUR_S} if skew_s < 0 else set())
    assert wanted - {T0 - HOUR_S} <= set(ticks) <= wanted
    assert len(world.taken) == len(set(world.taken))
    world.assert_whole()


def test_a_hint_in_the_journal_is_heard_once_there_is_room() -> None:
    world = World(schedule(lease_s=10 * HOUR_S)).at(T0)
    sight = TickSight(world.schedule, Meters("ingest"), world.clock.read())
    look = watch_journal(sight, world.store)
    world.batches.listing = {"a.mp4": "1"}
    world.batches.is_leaving = True
    world.ticker().run()
    assert not asyncio.run(look())
    world.catalogue.append(JournalEntry(kind=EntryKind.HINT, at_s=0.0, by="s3"))
    assert not asyncio.run(look())
    before = world.catalogue.state.number
    world.ticker().run()
    assert world.catalogue.state.number == before  # no tick, and none that is skipped
    for job in world.catalogue.jobs:
        make(job)
    assert asyncio.run(look())


def told_of(meters: Meters, name: str) -> dict[str, float]:
    """Of the only schedule, by state or kind."""
    series = MetricSamples.parse(meters.page().decode(), at_s=0.0).of(name, {})
    return {
        "".join(value for label, value in at if label != "schedule"): value
        for at, value in series.items()
    }


def test_ticks_are_counted_from_the_journal_whoever_runs_them() -> None:
    world = World(schedule(lease_s=10 * HOUR_S)).at(T0 + 60)
    meters = Meters("ingest")
    sight = TickSight(world.schedule, meters, world.clock.read())
    look = watch_journal(sight, world.store)
    asyncio.run(look())
    world.batches.listing = {"a.mp4": "1"}
    world.batches.is_leaving = True
    world.ticker("cron").run()
    world.at(T0 + HOUR_S + 301).ticker("airflow").run()  # late, and there is no room
    world.at(T0 + 3 * HOUR_S - 1)
    sight.due()
    asyncio.run(look())
    counts = {"due": 1, "missed": 0, "begun": 2, "late": 1, "done": 1, "skipped": 1}
    assert told_of(meters, "vidray_ticks_total") == counts
    assert told_of(meters, "vidray_found_videos_total") == {"new": 1, "changed": 0}
    assert told_of(meters, "vidray_batches_under_way") == {"": 1}
    assert told_of(meters, "vidray_waiting_ticks") == {"": 1}
    assert told_of(meters, "vidray_tick_overdue_seconds") == {"": HOUR_S - 1}

    for job in world.catalogue.jobs:
        make(job)
    world.batches.listing = {"a.mp4": "2", "b.mp4": "1"}
    world.ticker("cron").run()
    asyncio.run(look())
    assert told_of(meters, "vidray_ticks_total") == counts | {"begun": 3, "late": 2, "done": 2}
    assert told_of(meters, "vidray_found_videos_total") == {"new": 2, "changed": 1}
    for idle in ("vidray_waiting_ticks", "vidray_tick_overdue_seconds"):
        assert told_of(meters, idle) == {"": 0}


def test_a_tick_that_somebody_claimed_and_left_waits_and_is_overdue() -> None:
    world = World().at(T0 + 60)
    meters = Meters("ingest")
    look = watch_journal(TickSight(world.schedule, meters, world.clock.read()), world.store)
    with pytest.raises(Killed):
        world.ticker(checkpoint=dies_at(TickPoint.CLAIMED)).run()
    world.at(T0 + 600)
    asyncio.run(look())
    assert told_of(meters, "vidray_waiting_ticks") == {"": 1}
    assert told_of(meters, "vidray_tick_overdue_seconds") == {"": 600}
