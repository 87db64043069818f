"""What is open stays open as long as its holder says so: on a clock that the test turns."""

import asyncio
from pathlib import Path

import pytest

from actors import frame_reader
from pipeline.config import DecodeLimits
from pipeline.engine.ids import StreamId
from pipeline.errors import Transient
from pipeline.leases import Claim, Leases, Lessor
from pipeline.video.source import Source
from tests.local_actors import plain, without_ray
from tests.media_factory import Clip, make

LEASE_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def name(number: int, *, life: str = "1") -> StreamId:
    return StreamId("host", life, number)


def claim(*numbers: int, below: int, life: str = "1") -> Claim:
    return Claim("host", life, frozenset(numbers), below=below)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(clock: Clock) -> Leases:
    return Leases(lease_s=LEASE_S, clock=clock)


def test_what_is_claimed_stays_and_what_is_not_is_closed(leases: Leases) -> None:
    leases.renew(claim(1, below=3))
    assert leases.overdue([name(0), name(1), name(2)]) == [name(0), name(2)]


def test_what_was_opened_after_a_claim_was_made_is_none_of_its_business(leases: Leases) -> None:
    leases.renew(claim(below=3))
    assert leases.overdue([name(3), name(4)]) == []


def test_a_claim_that_comes_late_closes_nothing_that_is_held(leases: Leases) -> None:
    leases.renew(claim(4, below=5))
    leases.renew(claim(1, below=2))  # sent before
    assert leases.overdue([name(4)]) == []


def test_who_falls_silent_holds_nothing_any_more(leases: Leases, clock: Clock) -> None:
    assert leases.overdue([name(0)]) == []  # by opening it was heard of
    clock.now_s += LEASE_S
    leases.renew(claim(0, below=1))
    clock.now_s += LEASE_S
    assert leases.overdue([name(0)]) == []
    clock.now_s += 0.1
    assert leases.overdue([name(0)]) == [name(0)]


def test_every_life_of_a_holder_speaks_for_itself(leases: Leases, clock: Clock) -> None:
    assert leases.overdue([name(0)]) == []
    clock.now_s += LEASE_S
    leases.renew(claim(0, below=1, life="2"))
    clock.now_s += 0.1
    assert leases.overdue([name(0), name(0, life="2")]) == [name(0)]


def test_who_has_nothing_open_is_forgotten(leases: Leases, clock: Clock) -> None:
    leases.renew(claim(below=9))
    leases.overdue([])
    clock.now_s += 10 * LEASE_S
    assert leases.overdue([name(3)]) == []  # as if never heard of


def test_whoever_lends_closes_what_a_claim_leaves_out_and_whose_holder_is_silent(
    clock: Clock,
) -> None:
    open_names = {name(0), name(1)}

    async def close(each: StreamId) -> None:
        open_names.discard(each)

    async def run() -> None:
        lessor = Lessor(lambda: open_names, close, lease_s=0.01, clock=clock)
        lessor.watch("host")
        lessor.watch("host")  # once is enough
        await lessor.renew(claim(1, below=2))
        assert open_names == {name(1)}
        clock.now_s += 1.0
        while open_names:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_what_a_holder_has_open_that_is_gone_for_good_is_closed_at_once_and_nothing_else() -> None:
    other = StreamId("other", "1", 0)
    open_names = {name(0), name(1, life="2"), other}
    is_gone = {"host": asyncio.Event(), "other": asyncio.Event()}

    async def close(each: StreamId) -> None:
        open_names.discard(each)

    async def until_gone(owner: str) -> bool:
        return await is_gone[owner].wait()

    async def run() -> None:
        lessor = Lessor(lambda: open_names, close, lease_s=3_600.0, until_gone=until_gone)
        lessor.watch("host")
        lessor.watch("other")
        is_gone["host"].set()
        while len(open_names) > 1:
            await asyncio.sleep(0)
        assert open_names == {other}

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_reader_closes_the_videos_of_a_host_that_fell_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    source = Source.of(make(tmp_path, Clip(num_frames=6)))

    async def run() -> None:
        reader = plain(frame_reader.FrameReaderActor)(DecodeLimits(), "pyav", 1, 0.05)
        await reader.open(name(0), source)
        while reader._stage.videos:
            await asyncio.sleep(0.01)
        with pytest.raises(Transient):
            await reader.read(name(0))

    asyncio.run(asyncio.wait_for(run(), 60))
