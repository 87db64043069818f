"""Every tick takes effect once, and every version of a video is taken once, whoever ticks."""

import os
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import pytest

from jobs.batch.job import Job
from jobs.exits import Exit
from jobs.ingest.batches import RealBatches
from jobs.ingest.taking import Take, differing
from jobs.ingest.tick import TickPoint
from pipeline.errors import ConfigError
from pipeline.store.below import Below
from pipeline.store.catalogue import STATE_EVERY
from pipeline.store.items import Item
from pipeline.store.journal import EntryKind, JournalEntry, read_entry, tick_name
from pipeline.store.objects import ObjectStore
from pipeline.store.passed_over import PassedOver
from pipeline.store.seen import Seen
from tests.batch_driver import planned_ids
from tests.ingest_ticks import DAY_S, FakeBatches, Killed, World, dies_at, make, schedule

HOUR_S = 3600
T0 = 1_800_000_000 // HOUR_S * HOUR_S


@pytest.fixture
def world() -> World:
    return World().at(T0 + 60)


def assert_once(world: World, *versions: tuple[str, str]) -> None:
    assert Counter(world.taken) == Counter(versions)
    world.assert_whole()


def test_a_tick_takes_what_is_new_or_changed_and_counts_what_is_gone(world: World) -> None:
    world.batches.listing = {"a.mp4": "1", "b.mp4": "1", "c.mp4": "1"}
    world.ticker().run()
    world.at(T0 + HOUR_S + 60).batches.listing = {"a.mp4": "1", "b.mp4": "2", "d.mp4": "1"}
    world.ticker().run()
    assert_once(
        world, ("a.mp4", "1"), ("b.mp4", "1"), ("c.mp4", "1"), ("b.mp4", "2"), ("d.mp4", "1")
    )
    assert "1 new, 1 changed, 1 gone of 3 listed" in world.said[-1]


def test_a_version_that_comes_back_is_a_change(world: World) -> None:
    for hour, etag in enumerate(["1", "2", "1"]):
        world.at(T0 + hour * HOUR_S + 60).batches.listing = {"a.mp4": etag}
        world.ticker().run()
    assert_once(world, ("a.mp4", "1"), ("a.mp4", "2"), ("a.mp4", "1"))


def test_a_tick_of_a_due_instant_takes_effect_once(world: World) -> None:
    world.batches.listing = {"a.mp4": "1"}
    for name in ("b.mp4", "c.mp4"):
        assert world.ticker().run() is Exit.OK
        world.batches.listing[name] = "1"
    assert_once(world, ("a.mp4", "1"))
    assert world.catalogue.state.ticks == {T0}


def test_a_tick_that_finds_nothing_is_one_all_the_same(world: World) -> None:
    world.ticker().run()
    assert world.catalogue.state.ticks == {T0}
    assert world.catalogue.jobs == []


@pytest.mark.parametrize("point", TickPoint)
def test_a_scheduler_that_dies_anywhere_is_taken_over_after_its_lease(
    world: World, point: TickPoint
) -> None:
    world.batches.listing = {"a.mp4": "1", "b.mp4": "1"}
    with pytest.raises(Killed):
        world.ticker(checkpoint=dies_at(point)).run()
    world.batches.listing["c.mp4"] = "1"  # the next tick's, or this one's, but once
    world.at(T0 + 120).ticker("b").run()  # too early for all but the first point
    world.at(T0 + HOUR_S + 60).ticker("b").run()
    assert_once(world, ("a.mp4", "1"), ("b.mp4", "1"), ("c.mp4", "1"))
    assert world.catalogue.state.ticks == {T0, T0 + HOUR_S}


@pytest.mark.parametrize(("first", "second"), product(TickPoint, TickPoint))
def test_whoever_takes_over_may_die_too(world: World, first: TickPoint, second: TickPoint) -> None:
    world.batches.listing = {"a.mp4": "1"}
    for number, point in enumerate((first, second)):
        world.at(T0 + 60 + number * 1000)
        try:
            world.ticker(f"{number}", checkpoint=dies_at(point)).run()
        except Killed:
            continue
    world.at(T0 + HOUR_S + 60).ticker("last").run()
    assert_once(world, ("a.mp4", "1"))
    was_begun = {first, second} != {TickPoint.STARTED}
    assert world.catalogue.state.ticks == {T0 + HOUR_S} | ({T0} if was_begun else set())


@pytest.mark.parametrize("point", TickPoint)
@pytest.mark.parametrize("skew_s", [-600, 0, 600])
def test_two_at_once_make_one_batch_whatever_their_clocks_say(
    world: World, point: TickPoint, skew_s: int
) -> None:
    """The second runs to its end while the first is at `point`."""
    world.batches.listing = {f"{number}.mp4": "1" for number in range(5)}
    world.at(T0 + 700)

    def other(here: TickPoint) -> None:
        if here is point:
            world.ticker("b", skew_s=skew_s).run()

    world.ticker("a", checkpoint=other).run()
    world.at(T0 + HOUR_S + 700).ticker("b", skew_s=skew_s).run()
    assert_once(world, *((f"{number}.mp4", "1") for number in range(5)))
    assert {T0, T0 + HOUR_S} <= world.catalogue.state.ticks
    assert len(world.catalogue.jobs) == 1


def test_a_clock_that_is_ten_minutes_fast_ticks_early_and_the_right_one_not_again(
    world: World,
) -> None:
    world.batches.listing = {"a.mp4": "1"}
    world.at(T0 - 300).ticker("fast", skew_s=600).run()
    world.at(T0 + 60).ticker("right").run()
    world.at(T0 + 300).ticker("slow", skew_s=-600).run()
    assert_once(world, ("a.mp4", "1"))
    assert T0 in world.catalogue.state.ticks


def looks_in(world: World, by: str, skew_s: float, *, every_s: float) -> AbstractContextManager:
    """Another scheduler, that ticks again and again while time passes."""

    def look() -> bool:
        world.ticker(by, skew_s=skew_s).run()
        return True

    return world.clock.ringing(look, every_s)


def claimants(world: World, tick_s: int) -> list[tuple[float, str]]:
    """When, by their clocks, and who claimed this tick, in order."""
    entries = (read_entry(world.store, each + 1) for each in range(world.catalogue.state.number))
    return [
        (entry.at_s, entry.by)
        for entry in entries
        if entry is not None and entry.kind is EntryKind.CLAIM and entry.tick_s == tick_s
    ]


@pytest.mark.parametrize("skew_s", [-600, 0, 600])
@pytest.mark.parametrize("slow", ["listing_s", "making_s"])
def test_a_tick_that_lives_is_never_taken_over_however_long_it_takes(
    world: World, slow: str, skew_s: int
) -> None:
    world.schedule = schedule(cron="@daily")
    world.batches.listing = {"a.mp4": "1"}
    tick_s = T0 - T0 % DAY_S
    ticker = world.ticker("a")
    setattr(world.batches, slow, 5.0 * HOUR_S)
    with looks_in(world, "b", skew_s, every_s=300.0):
        ticker.run([tick_s])
    assert {by for _, by in claimants(world, tick_s)} == {"a"}
    assert_once(world, ("a.mp4", "1"))


@pytest.mark.parametrize("skew_s", [-600, 0, 600])
@pytest.mark.parametrize("point", [TickPoint.CLAIMED, TickPoint.LISTED, TickPoint.TAKEN])
def test_a_tick_that_died_is_taken_over_once_it_was_silent_for_a_lease(
    world: World, point: TickPoint, skew_s: int
) -> None:
    """Silent by the clock of whoever takes it over, which may be wrong."""
    world.schedule = schedule(cron="@daily")
    world.batches.listing = {"a.mp4": "1"}
    tick_s = T0 - T0 % DAY_S
    world.batches.listing_s = 2.0 * HOUR_S
    with pytest.raises(Killed):
        world.ticker("a", checkpoint=dies_at(point)).run([tick_s])
    world.batches.listing_s = 0.0
    (*_, (last_s, _)) = claimants(world, tick_s)
    died_s = world.store.now_s
    with looks_in(world, "b", skew_s, every_s=10.0):
        world.clock.sleep(2 * world.schedule.lease_s)
    (taken_over_s, by), *_ = [each for each in claimants(world, tick_s) if each[1] != "a"]
    assert by == "b"
    assert 0 < taken_over_s - last_s - world.schedule.lease_s <= 20
    assert taken_over_s - skew_s >= died_s
    assert_once(world, ("a.mp4", "1"))


def test_while_a_batch_runs_longer_than_its_interval_ticks_are_skipped_and_say_so() -> None:
    world = World(schedule(overlap="skip", lease_s=10 * HOUR_S)).at(T0 + 60)
    world.batches.listing = {"a.mp4": "1"}
    world.batches.is_leaving = True
    world.ticker().run()
    world.batches.listing["b.mp4"] = "1"
    world.at(T0 + HOUR_S + 60).ticker("b").run()
    assert world.said[-1] == f"{tick_name(T0 + HOUR_S)}: skipped, as other batches are under way"
    finish_all(world)
    world.at(T0 + 2 * HOUR_S + 60).ticker("b").run()
    assert_once(world, ("a.mp4", "1"), ("b.mp4", "1"))


def test_a_queued_tick_waits_for_room_and_takes_what_is_there_by_then() -> None:
    world = World(schedule(overlap="queue", lease_s=10 * HOUR_S)).at(T0 + 60)
    world.batches.listing = {"a.mp4": "1"}
    world.batches.is_leaving = True
    world.ticker().run()
    ticker = world.at(T0 + HOUR_S + 60).ticker("b")
    slept = []

    def sleep(seconds: float) -> None:
        world.clock.sleep(seconds)
        slept.append(seconds)
        if len(slept) == 3:
            world.batches.listing["b.mp4"] = "1"
            finish_all(world)

    replace(ticker, sleep=sleep).run()
    assert len(slept) == 3
    assert_once(world, ("a.mp4", "1"), ("b.mp4", "1"))


def test_more_batches_at_once_are_allowed_by_max_active() -> None:
    world = World(schedule(max_active=2, lease_s=10 * HOUR_S)).at(T0 + 60)
    world.batches.is_leaving = True
    for hour in range(3):
        world.batches.listing[f"{hour}.mp4"] = "1"
        world.at(T0 + hour * HOUR_S + 60).ticker().run()
    assert len(world.catalogue.jobs) == 2
    assert "skipped" in world.said[-1]


@pytest.mark.parametrize(
    ("catch_up", "hours"), [("none", [10]), ("last", [10]), (1, [10]), (3, [8, 9, 10])]
)
def test_of_missed_ticks_as_many_are_run_as_are_to_be_caught_up(
    catch_up: object, hours: list[int]
) -> None:
    world = World(schedule(catch_up=catch_up)).at(T0 + 60)
    world.ticker().run()
    world.batches.listing = {"a.mp4": "1"}
    world.at(T0 + 10 * HOUR_S + 60).ticker().run()
    assert world.catalogue.state.ticks == {T0, *(T0 + hour * HOUR_S for hour in hours)}
    assert_once(world, ("a.mp4", "1"))
    assert f"; {10 - len(hours)} ticks before it were missed" in "".join(world.said)


def test_a_backfill_runs_ticks_that_nobody_ran_and_moves_no_clock(world: World) -> None:
    world.ticker().run()
    asked = [T0 - hour * HOUR_S for hour in (3, 2, 0)]
    world.batches.listing = {"a.mp4": "1"}
    world.ticker().run(asked)
    assert world.catalogue.state.ticks == set(asked)
    assert world.catalogue.state.last_cron_s == T0
    assert_once(world, ("a.mp4", "1"))


def test_a_hint_is_a_tick_between_ticks_however_many_hints_came(world: World) -> None:
    world.ticker().run()
    world.batches.listing = {"a.mp4": "1"}
    world.at(T0 + 100).ticker().run()
    assert world.said[-1] == "nothing is due"
    for _ in range(3):
        world.catalogue.append(JournalEntry(kind=EntryKind.HINT, at_s=0.0, by="s3"))
    world.at(T0 + 107).ticker().run()
    assert world.catalogue.state.hint is None
    world.at(T0 + 110).ticker().run()
    assert world.catalogue.state.ticks == {T0, T0 + 107}
    assert world.catalogue.state.last_cron_s == T0
    assert_once(world, ("a.mp4", "1"))


def test_two_hints_within_a_second_are_two_ticks(world: World) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        world.batches.listing[name] = "1"
        world.ticker().run()
        world.catalogue.append(JournalEntry(kind=EntryKind.HINT, at_s=0.0, by="s3"))
    assert_once(world, ("a.mp4", "1"), ("b.mp4", "1"), ("c.mp4", "1"))


def test_a_hint_that_comes_during_a_listing_is_not_forgotten(world: World) -> None:
    def hint(here: TickPoint) -> None:
        if here is TickPoint.LISTED:
            world.catalogue.append(JournalEntry(kind=EntryKind.HINT, at_s=0.0, by="s3"))

    world.ticker(checkpoint=hint).run()
    assert world.catalogue.state.ticks == {T0}
    assert world.catalogue.state.hint is not None


def test_a_paused_schedule_runs_nothing_until_it_is_resumed(world: World) -> None:
    world.catalogue.append(JournalEntry(kind=EntryKind.PAUSE, at_s=0.0, by="me"))
    world.ticker().run()
    assert world.said == ["paused"]
    world.catalogue.append(JournalEntry(kind=EntryKind.RESUME, at_s=0.0, by="me"))
    world.ticker().run()
    assert world.catalogue.state.ticks == {T0}


def test_a_limit_leaves_the_rest_to_the_ticks_after_it() -> None:
    world = World(schedule(job={"limit": 2})).at(T0 + 60)
    world.batches.listing = {f"{number}.mp4": "1" for number in range(5)}
    for hour in range(3):
        world.at(T0 + hour * HOUR_S + 60).ticker().run()
    assert [len(job) for job in jobs_of(world)] == [2, 2, 1]
    assert_once(world, *((f"{number}.mp4", "1") for number in range(5)))


def test_files_that_change_between_two_listings_are_left_for_the_next_tick() -> None:
    world = World(schedule(source="/clips", settle_s=20)).at(T0 + 60)
    world.batches.listing = {"whole.mp4": "1", "grows.mp4": "1"}
    ticker = world.ticker()

    def sleep(seconds: float) -> None:
        assert seconds == 20
        world.batches.listing |= {"grows.mp4": "2", "late.mp4": "1"}

    replace(ticker, sleep=sleep).run()
    assert world.taken == [("whole.mp4", "1")]
    assert "2 still being written" in world.said[-1]
    world.at(T0 + HOUR_S + 60).ticker().run()
    assert_once(world, ("whole.mp4", "1"), ("grows.mp4", "2"), ("late.mp4", "1"))


def test_a_file_that_is_copied_for_twenty_seconds_is_taken_once_and_whole(tmp_path: Path) -> None:
    """Into a real folder, a piece every two seconds, with a tick every four."""
    archive, pieces = tmp_path / "clips", 10
    archive.mkdir()
    (archive / "whole.mp4").write_bytes(b"there")
    world = World(schedule(source=str(archive), settle_s=2.0, out=str(tmp_path / "rows")))
    world.at(T0)
    written = []

    def copy_on() -> bool:
        with (archive / "grows.mp4").open("ab") as file:
            file.write(bytes(1000))
            written.append(file.tell())
        os.utime(file.name, (world.store.now_s, world.store.now_s))
        return len(written) < pieces

    batches = FolderBatches(world.store, out=world.schedule.out)
    with world.clock.ringing(copy_on, 2.0):
        for _ in range(8):
            replace(world.ticker(), batches=batches).run([int(world.store.now_s)])
            world.clock.sleep(2.0)
    assert written[-1] == 1000 * pieces
    taken = [(name.rpartition("/")[2], size) for name, size in batches.planned]
    assert taken == [("whole.mp4", 5), ("grows.mp4", 1000 * pieces)]


@dataclass
class FolderBatches(FakeBatches):
    """Videos of a real folder."""

    out: str = ""
    planned: list[tuple[str, int | None]] = field(default_factory=list)

    def listed(self, job: Job, passed_over: PassedOver) -> Iterator[Item]:
        return RealBatches().listed(job, passed_over)

    def submit(self, job: Job, items: Iterable[Item], passed_over: Mapping[str, int]) -> None:
        items = list(items)
        self.planned += [(item.uri, item.size_bytes) for item in items]
        super().submit(job, items, passed_over)

    def _out(self, job: Job) -> ObjectStore:
        return Below(self.store, f"{job.out.removeprefix(self.out).strip('/')}/")


def test_settings_that_change_meanwhile_do_not_change_a_batch_that_was_taken(world: World) -> None:
    world.schedule = schedule(job={"ask": "What?", "max_new_tokens": 8})
    world.batches.listing = {"a.mp4": "1"}
    with pytest.raises(Killed):
        world.ticker(checkpoint=dies_at(TickPoint.TAKEN)).run()
    jobs = []
    world.schedule = schedule(job={"ask": "Who?", "in_process": True})
    ticker = world.at(T0 + 2000).ticker("b")
    submit = world.batches.submit
    world.batches.submit = lambda job, *rest: (jobs.append(job), submit(job, *rest))[1]  # type: ignore[method-assign]
    ticker.run()
    (job,) = jobs
    assert (job.ask, job.max_new_tokens, job.in_process) == (("What?",), 8, True)
    assert job.job_id == f"s-{tick_name(T0)}"


def test_a_long_journal_is_read_from_its_sums(world: World) -> None:
    for hour in range(STATE_EVERY):
        world.batches.listing[f"{hour}.mp4"] = "1"
        world.at(T0 + hour * HOUR_S + 60).ticker().run()
    shortened = world.catalogue
    seen = shortened.seen()
    sums = [key for key in world.store.objects if "state-" in key or "seen-" in key]
    assert len(sums) == 4  # of a claim and a take each
    for key in sums:
        del world.store.objects[key]
    again = world.catalogue
    assert again.state.ticks == shortened.state.ticks
    assert again.state.jobs == shortened.state.jobs
    assert list(again.seen().ids) == list(seen.ids)
    assert list(again.seen().etags) == list(seen.etags)
    world.at(T0 + DAY_S * 3).ticker().run()
    assert len(world.taken) == STATE_EVERY


def test_a_batch_that_cannot_be_gone_on_with_holds_up_no_later_tick(world: World) -> None:
    world.batches.listing = {"a.mp4": "1"}
    with pytest.raises(Killed):
        world.ticker(checkpoint=dies_at(TickPoint.TAKEN)).run()
    submit = world.batches.submit

    def refuse(job, items, passed_over):  # type: ignore[no-untyped-def]
        if job.job_id.endswith(tick_name(T0)):
            raise ConfigError("the model is gone")
        submit(job, items, passed_over)

    world.batches.submit = refuse  # type: ignore[method-assign]
    world.schedule = schedule(max_active=2)
    world.batches.listing["b.mp4"] = "1"
    assert world.at(T0 + HOUR_S + 60).ticker("b").run() is Exit.FAILED
    assert world.catalogue.state.ticks == {T0, T0 + HOUR_S}
    world.batches.submit = submit  # type: ignore[method-assign]
    world.at(T0 + 2 * HOUR_S + 60).ticker("b").run()
    assert_once(world, ("a.mp4", "1"), ("b.mp4", "1"))


def jobs_of(world: World) -> list[list[str]]:
    return [planned_ids(job) for job in world.catalogue.jobs]


def finish_all(world: World) -> None:
    world.batches.is_leaving = False
    for job in world.catalogue.jobs:
        make(job)


def test_a_listing_is_compared_in_little_memory() -> None:
    def listed(count: int) -> Iterator[Item]:
        return (Item(uri=f"s3://in/{number:0100}.mp4", etag="1") for number in range(count))

    seen = differing(listed(10_000), Seen())
    tracemalloc.start()
    try:
        take = Take(seen)
        taken = sum(1 for _ in take.of(listed(10_100)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken == 100
    assert take.counts.deleted == 0
    assert peak_bytes < 15 << 20  # a block of it, however long it is
