"""What gives things back goes on to its end, whoever waits for it and is cancelled meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pipeline.analyse import analyse
from pipeline.carried_out import carried_out
from pipeline.config import Sampling, SessionLimits
from pipeline.engine.ids import StreamId
from pipeline.events import Event, Words
from pipeline.local import LocalFlow, LocalModel
from pipeline.session import Session
from pipeline.sessions import Sessions
from pipeline.tasks.tasks import Tasks
from pipeline.video.source import Source
from tests.sessions import run, until

SAMPLING = Sampling(max_new_tokens=4)


class SlowToClose:
    """A reader or decoder whose closing takes until it is let go."""

    def __init__(self, stage: Any, patch: pytest.MonkeyPatch) -> None:
        self.begun: list[StreamId] = []
        self.may_end = asyncio.Event()
        self._close = stage.close
        patch.setattr(stage, "close", self.close)

    async def close(self, name: StreamId) -> None:
        self.begun.append(name)
        await self.may_end.wait()
        await self._close(name)


async def given_up(work: Awaitable[None], slow: SlowToClose) -> None:
    """Cancelled in the middle of closing, and again by whoever does not want to wait."""
    task = asyncio.ensure_future(work)
    await until(lambda: slow.begun)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def watched(flow: LocalFlow, source: Source) -> Session:
    """A session that holds two streams: of the video, and of the still in its middle."""
    session = Session(flow, source, max_streams=2)
    await session.open()
    await session.ask(["Why?"], sampling=SAMPLING)
    await session.ground("a dog", sampling=SAMPLING)
    return session


@pytest.mark.parametrize("free", [Session.close, Session.rest])
def test_all_streams_of_a_session_are_freed_though_whoever_frees_them_is_cancelled(
    free: Callable[[Session], Awaitable[None]],
    flow: LocalFlow,
    local_model: LocalModel,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> None:
        session = await watched(flow, source)
        assert len(local_model.rank.streams) == 2
        slow = SlowToClose(flow._decoders.members[0], monkeypatch)
        await given_up(free(session), slow)
        assert session.num_tokens == 0
        slow.may_end.set()
        await until(lambda: local_model.rank.streams == ())
        await session.close()

    run(work())


def test_a_session_frees_its_streams_though_it_is_cancelled_while_its_video_closes(
    flow: LocalFlow, local_model: LocalModel, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        session = await watched(flow, source)
        await session._viewer._opened_video()  # as for a view that is watched next
        slow = SlowToClose(flow._readers.members[0], monkeypatch)
        await given_up(session.close(), slow)
        slow.may_end.set()
        await until(lambda: (local_model.rank.streams, flow._readers.members[0].videos) == ((), ()))

    run(work())


def test_a_session_closed_by_its_id_is_freed_though_whoever_closes_it_is_cancelled(
    flow: LocalFlow, local_model: LocalModel, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        sessions = Sessions(flow, SessionLimits(max_tokens=1_000_000))
        session_id, session = await sessions.open(source)
        await session.ask(["Why?"], sampling=SAMPLING)
        slow = SlowToClose(flow._decoders.members[0], monkeypatch)
        await given_up(sessions.close(session_id), slow)
        slow.may_end.set()
        await until(lambda: local_model.rank.streams == ())

    run(work())


def test_a_stream_that_got_room_when_nobody_wanted_it_any_more_is_closed_though_cancelled_twice(
    flow: LocalFlow, local_model: LocalModel, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        slow = SlowToClose(flow._decoders.members[0], monkeypatch)
        is_told = asyncio.Event()

        async def wait() -> None:
            is_told.set()
            await asyncio.Event().wait()

        opened = flow._decoders.members[0].open

        async def late(*told: Any) -> None:
            await is_told.wait()
            await opened(*told)

        monkeypatch.setattr(flow._decoders.members[0], "open", late)
        session = Session(flow, source, on_waiting=wait)
        await session.open()
        asking = asyncio.create_task(session._viewer.room_for(None))
        await until(lambda: local_model.rank.streams)
        await asyncio.sleep(0)
        await given_up_task(asking, slow)
        slow.may_end.set()
        await until(lambda: local_model.rank.streams == ())
        await session.close()

    run(work())


async def given_up_task(task: "asyncio.Task[Any]", slow: SlowToClose) -> None:
    task.cancel()
    await given_up(task, slow)


def test_a_listener_that_fails_at_the_last_word_leaves_no_stream_open(
    flow: LocalFlow, local_model: LocalModel, source: Source
) -> None:
    """Of a video that is asked once, whose stream ends with its last answer."""

    def fail_at_the_end(event: Event) -> None:
        if isinstance(event, Words) and event.span.num_tokens:
            raise OSError("the terminal is gone")

    async def work() -> None:
        tasks = Tasks(sampling=SAMPLING)
        with pytest.raises(OSError, match="terminal"):
            await analyse(source, tasks, flow, video_id="clip", listener=fail_at_the_end)
        assert local_model.rank.streams == ()

    run(work())


@pytest.mark.parametrize("num_turns", range(1, 6))
def test_all_streams_are_freed_wherever_in_their_closing_the_event_loop_ends(
    num_turns: int, flow: LocalFlow, local_model: LocalModel, source: Source
) -> None:
    """It cancels all tasks, also those that have not begun; programs go on in another one."""

    async def work() -> None:
        session = await watched(flow, source)
        closing = asyncio.ensure_future(session.close())
        for _ in range(num_turns):
            await asyncio.sleep(0)
        assert not closing.cancelled()  # it is the end of the loop that cancels it

    async def later() -> None:
        async with Session(flow, source) as session:
            await session.ask(["Why?"], sampling=SAMPLING)

    asyncio.run(work())
    run(later())
    assert (local_model.rank.streams, flow._held) == ((), set())


def test_a_cancelled_caller_goes_when_the_work_has_ended_or_when_cancelled_again() -> None:
    async def work() -> None:
        for num_cancels in (1, 2):
            may_end, has_ended = asyncio.Event(), asyncio.Event()

            async def give_back(may_end=may_end, has_ended=has_ended) -> None:
                await may_end.wait()
                has_ended.set()

            caller = asyncio.create_task(carried_out(give_back()))
            for _ in range(num_cancels):
                await turns()
                caller.cancel()
            await turns()
            assert caller.done() == (num_cancels == 2)
            assert not has_ended.is_set()
            may_end.set()
            await has_ended.wait()
            with pytest.raises(asyncio.CancelledError):
                await caller

    run(work())


@pytest.mark.parametrize("num_cancels", [0, 1, 2])
def test_what_the_work_raises_is_raised_or_where_nobody_waits_logged(
    num_cancels: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        may_end = asyncio.Event()

        async def give_back() -> None:
            await may_end.wait()
            raise OSError("the disk is away")

        caller = asyncio.create_task(carried_out(give_back()))
        for _ in range(num_cancels):
            await turns()
            caller.cancel()
        await turns()
        may_end.set()
        with pytest.raises(asyncio.CancelledError if num_cancels else OSError):
            await caller
        await turns()

    run(work())
    assert ("the disk is away" in caplog.text) == bool(num_cancels)


async def turns() -> None:
    """Enough of the event loop's for whatever could be done to be done."""
    for _ in range(10):
        await asyncio.sleep(0)
