"""Whoever answers pings and does nothing else is given up in time, as is a thread that hangs."""

import asyncio
import threading
from pathlib import Path

import pytest

from actors.clients import FrameReaderClient
from actors.profile import Profile
from pipeline.config import DecodeLimits
from pipeline.engine.ids import StreamId
from pipeline.errors import Transient
from pipeline.stages import reading
from pipeline.stages.reading import ReadingStage
from pipeline.video.source import Source
from tests.local_actors import LocalHandle
from tests.virtual_time import run_virtually

NAME = StreamId("host", "1", 0)


class Absent:
    """An actor that lives, and whose answers get lost."""

    async def process_id(self) -> int:
        return 0

    async def open(self, video: StreamId, source: Source) -> None:
        await asyncio.Event().wait()


def run(work: object) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_an_answer_that_is_lost_is_not_waited_for_while_its_actor_lives() -> None:
    async def work() -> None:
        client = FrameReaderClient(LocalHandle(Absent()), stall_s=0.5, answer_s=0.6)
        with pytest.raises(Transient, match=r"no answer in 0\.6 s"):
            await client.open(NAME, Source.of("x"))

    run_virtually(work())  # no pause of the machine makes the actor a silent one


class Hasty(DecodeLimits):
    hang_s = 0.1


def test_a_thread_that_hangs_in_a_file_system_is_told_and_its_video_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, told = threading.Event(), []
    monkeypatch.setattr(reading.OpenVideo, "open", lambda *_: answers.wait(60))

    async def work() -> None:
        stage = ReadingStage(Hasty(), on_failure=told.append)
        with pytest.raises(Transient, match="a reader hangs"):
            await stage.open(NAME, Source.of(Path("x")))
        answers.set()
        await stage.close(NAME)
        stage.stop()

    run(work())
    assert len(told) == 1


def test_a_video_is_not_closed_under_a_thread_whose_caller_gave_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, may_end, order = threading.Event(), threading.Event(), []

    def opens(*_: object) -> None:
        began.set()
        may_end.wait(60)
        order.append("left by the thread")

    monkeypatch.setattr(reading.OpenVideo, "open", opens)
    monkeypatch.setattr(reading.OpenVideo, "close", lambda _: order.append("closed"))

    async def work() -> None:
        stage = ReadingStage(DecodeLimits())
        opening = asyncio.create_task(stage.open(NAME, Source.of(Path("x"))))
        await asyncio.to_thread(began.wait, 60)
        opening.cancel()
        await asyncio.wait({opening})
        closing = asyncio.create_task(stage.close(NAME))
        for _ in range(10):  # as far as it comes
            await asyncio.sleep(0)
        may_end.set()
        await closing
        stage.stop()

    run(work())
    assert order == ["left by the thread", "closed"]


def test_a_video_is_closed_though_its_closer_gave_up_waiting_for_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, may_end, closed = threading.Event(), threading.Event(), threading.Event()

    def opens(*_: object) -> None:
        began.set()
        may_end.wait(60)

    monkeypatch.setattr(reading.OpenVideo, "open", opens)
    monkeypatch.setattr(reading.OpenVideo, "close", lambda _: closed.set())

    async def work() -> None:
        stage = ReadingStage(DecodeLimits())
        opening = asyncio.create_task(stage.open(NAME, Source.of(Path("x"))))
        await asyncio.to_thread(began.wait, 60)
        closing = asyncio.create_task(stage.close(NAME))
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})
        may_end.set()
        await opening
        assert await asyncio.to_thread(closed.wait, 20)
        stage.stop()

    run(work())


def test_nobody_reads_a_video_that_is_being_closed_whose_closer_gave_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, may_end, order = threading.Event(), threading.Event(), []

    def closes(_: object) -> None:
        began.set()
        may_end.wait(60)
        order.append("closed")

    monkeypatch.setattr(reading.OpenVideo, "open", lambda *_: None)
    monkeypatch.setattr(reading.OpenVideo, "close", closes)
    monkeypatch.setattr(reading.OpenVideo, "read", lambda *_: order.append("read"))

    async def work() -> None:
        stage = ReadingStage(DecodeLimits())
        await stage.open(NAME, Source.of(Path("x")))
        video = stage._videos[NAME]
        closing = asyncio.create_task(stage.close(NAME))
        await asyncio.to_thread(began.wait, 60)
        late = asyncio.create_task(stage._on_thread(video, lambda: video.read(None, "pyav")))
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})
        for _ in range(10):  # as far as it comes
            await asyncio.sleep(0)
        stage._thread.submit(lambda: None).result(60)  # whatever came to the thread has been done
        may_end.set()
        await late
        stage.stop()

    run(work())
    assert order == ["closed", "read"]


def test_a_closed_video_is_read_no_more() -> None:
    video = reading.OpenVideo(reading.Process.here("reader"))
    video._media = object()
    video.close()
    with pytest.raises(Transient, match="not open"):
        video.read(object(), "pyav")


def test_a_call_may_take_what_all_other_videos_take_first_and_no_longer() -> None:
    profile = Profile()
    own = profile.decode_limits.hang_s
    assert own > profile.decode_limits.wall_s
    assert profile.answer_s >= own + profile.videos_in_flight * profile.stall_s
