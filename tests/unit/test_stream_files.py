"""What becomes of streams' files when the disk does its steps late, in any order, or not at all."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobs.serve.bodies import VideoSampling
from jobs.serve.left_stream import LeftStream, StreamEntry
from jobs.serve.open_streams import OpenStreams
from jobs.serve.rates import Rates
from jobs.serve.served_videos import ServedVideos
from jobs.serve.shared_stream import SharedStream
from jobs.serve.stream_file import StreamFile
from jobs.serve.stream_journal import StreamJournal
from jobs.serve.stream_log import LoggedEvent, StreamLog
from jobs.serve.uploads import Uploads

KEEP_S = 3_600.0
LONG_AGO_S = 1_000_000_000.0
TURNS = 20  # of the event loop, after which nothing more happens but by the disk
TIMEOUT_S = 20.0

pytestmark = pytest.mark.timeout(60)


class HandDisk(Executor):
    """Does what it is given when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def submit(self, do: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        done: Future[Any] = Future()

        def step() -> None:
            try:
                done.set_result(do(*args))
            except Exception as error:  # noqa: BLE001 - it is that of whoever wanted it
                done.set_exception(error)

        self.waiting.append(step)
        return done

    async def do_all(self, index: int) -> None:
        """index: 0, what came first is done first; -1, what came last."""
        await turns()
        while self.waiting:
            self.waiting.pop(index)()
            await turns()


class KeptStream:
    """As much of a stream as a journal knows of."""

    def __init__(self, number: str = "1") -> None:
        self.id = f"stream-{number}"
        self.entry = StreamEntry(
            stream_id=self.id,
            owner="me",
            file_id="file-1",
            sha256=number,
            sampling=VideoSampling(),
            created_at=0,
        )
        self.log = StreamLog([LoggedEvent(1, "planned", '{"plan":{"hash":"1"}}')])
        self.answers: dict[str, Any] = {}


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def life() -> SharedStream:
    return cast(SharedStream, KeptStream())


async def with_one_left(folder: Path, disk: HandDisk) -> StreamJournal:
    """One that was left long ago; steps are the disk's from now on."""
    journal = StreamJournal(folder, keep_s=KEEP_S)
    await journal.open()
    await journal.keep(stream := life())
    journal.leave(stream)
    await journal.written(stream.id)
    os.utime(folder / "stream-1.jsonl", (LONG_AGO_S, LONG_AGO_S))
    journal._threads = disk
    return journal


@pytest.mark.parametrize("index", [0, -1])
def test_the_sweep_takes_no_file_away_from_a_stream_that_is_opened_again(
    tmp_path: Path, index: int
):
    async def work() -> None:
        disk = HandDisk()
        journal = await with_one_left(tmp_path, disk)
        sweeping = asyncio.create_task(journal.sweep())
        await turns()
        disk.waiting.pop()()  # it is old
        keeping = asyncio.create_task(journal.keep(life()))
        await disk.do_all(index)
        await asyncio.gather(sweeping, keeping)

    asyncio.run(work())
    assert LeftStream.read(tmp_path / "stream-1.jsonl") is not None


@pytest.mark.parametrize("index", [0, -1])
def test_a_stream_is_kept_when_what_is_under_way_with_its_file_is_done(tmp_path: Path, index: int):
    async def work() -> None:
        disk = HandDisk()
        journal = await with_one_left(tmp_path, disk)
        journal.remove("stream-1")
        keeping = asyncio.create_task(journal.keep(life()))
        await disk.do_all(index)
        await keeping

    asyncio.run(work())
    assert LeftStream.read(tmp_path / "stream-1.jsonl") is not None


@pytest.mark.parametrize("index", [0, -1])
def test_what_is_just_being_left_is_not_old(tmp_path: Path, index: int):
    async def work() -> None:
        disk = HandDisk()
        journal = await with_one_left(tmp_path, disk)
        keeping = asyncio.create_task(journal.keep(stream := life()))
        await disk.do_all(index)
        await keeping
        os.utime(tmp_path / "stream-1.jsonl", (LONG_AGO_S, LONG_AGO_S))  # nothing happened since
        journal.leave(stream)
        sweeping = asyncio.create_task(journal.sweep())
        await disk.do_all(index)
        await sweeping
        assert journal.of_id("stream-1") is not None

    asyncio.run(work())
    assert LeftStream.read(tmp_path / "stream-1.jsonl") is not None


def test_steps_that_are_cut_off_in_any_order_end(tmp_path: Path):
    async def work() -> None:
        journal = await with_one_left(tmp_path, HandDisk())
        journal.remove("stream-1")
        (first,) = journal._steps.values()
        journal.remove("stream-1")
        (second,) = journal._steps.values()
        await turns()
        second.cancel()
        await asyncio.wait({second})
        first.cancel()
        ended = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(each) for each in ended] == [asyncio.CancelledError] * 2

    asyncio.run(work())


def test_events_are_told_where_no_file_can_be_written(tmp_path: Path):
    (tmp_path / "no-folder").touch()
    file = StreamFile(tmp_path / "no-folder" / "stream-1.jsonl", b"{}\n")

    async def work() -> None:
        log = StreamLog()
        async with asyncio.timeout(TIMEOUT_S):
            await log.keep_in(file, None)
            await log.told(log.append("planned", {}))

    asyncio.run(work())


def test_a_file_that_fails_as_it_is_closed_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = StreamFile(tmp_path / "stream-1.jsonl", b"{}\n")
    file.replace([])
    closed: list[int] = []
    close = os.close

    def close_and_fail(number: int) -> None:
        closed.append(number)
        close(number)
        raise OSError("the server is gone")

    monkeypatch.setattr("jobs.serve.stream_file.os.close", close_and_fail)
    file.close()
    file.close()
    assert len(closed) == 1


def test_who_follows_one_answer_ends_with_the_log_though_its_last_words_are_anothers(
    tmp_path: Path,
):
    async def work() -> None:
        disk, log = HandDisk(), StreamLog()
        keeping = asyncio.create_task(
            log.keep_in(StreamFile(tmp_path / "stream-1.jsonl", b"{}\n"), disk)
        )
        log.append("asked", {}, answer="one")
        await disk.do_all(0)
        await keeping

        async def heard() -> list[str]:
            return [event.name async for event in log.follow(answer="one")]

        following = asyncio.create_task(heard())
        log.append("words", {}, answer="two")
        log.close()
        await disk.do_all(0)
        async with asyncio.timeout(TIMEOUT_S):
            assert await following == ["asked"]

    asyncio.run(work())


def test_the_sweep_leaves_a_stream_alone_that_was_opened_again_while_it_closed_another(
    tmp_path: Path,
):
    async def work() -> None:
        streams = open_streams(tmp_path)
        await streams.journal.open()
        first, second, again = OpenLife("1"), OpenLife("2"), OpenLife("2")
        for each in (first, second):
            await streams.journal.keep(cast(SharedStream, each))
            streams._streams[each.entry.key] = cast(SharedStream, each)

        async def meanwhile() -> None:
            await streams.leave(cast(SharedStream, second))
            await streams.journal.keep(cast(SharedStream, again))
            again.used_at = time.time()
            streams._streams[again.entry.key] = cast(SharedStream, again)

        first.on_close = meanwhile
        await streams.sweep()
        await streams.journal.close()
        assert streams.all == [again]

    asyncio.run(work())
    assert [path.name for path in tmp_path.glob("streams/*")] == ["stream-2.jsonl"]


@pytest.mark.parametrize("free", [OpenStreams.close, OpenStreams.leave])
def test_a_stream_is_freed_though_whoever_frees_it_is_cancelled(
    tmp_path: Path, free: Callable[[OpenStreams, SharedStream], Awaitable[None]]
):
    async def work() -> None:
        streams, stream = open_streams(tmp_path), OpenLife("1")
        await streams.journal.open()
        await streams.journal.keep(cast(SharedStream, stream))
        is_reached, may_end, is_closed = (asyncio.Event() for _ in range(3))

        async def slowly() -> None:
            is_reached.set()
            await may_end.wait()
            is_closed.set()

        stream.on_close = slowly
        freeing = asyncio.ensure_future(free(streams, cast(SharedStream, stream)))
        await is_reached.wait()
        for _ in range(2):
            freeing.cancel()
            await turns()
        may_end.set()
        async with asyncio.timeout(TIMEOUT_S):
            await is_closed.wait()
            told = [event.name async for event in stream.log.follow()]
        assert told[1:] == (["closed"] if free is OpenStreams.close else [])
        await streams.journal.close()

    asyncio.run(work())


class OpenLife(KeptStream):
    """One that nobody has asked for in a long time."""

    def __init__(self, number: str) -> None:
        super().__init__(number)
        self.key, self.session = self.entry.key, self
        self.num_running, self.used_at = 0, 0.0
        self.on_close: Callable[[], Awaitable[None]] = turns

    async def close(self) -> None:
        """Of the session."""
        await self.on_close()


def open_streams(folder: Path) -> OpenStreams:
    return OpenStreams(
        cast(ServedVideos, None),
        cast(Uploads, SimpleNamespace(folder=folder)),
        max_streams=2,
        max_frames=2,
        rates=cast(Rates, None),
        hear=lambda stream_id, event: None,
        on_left=lambda stream, left: None,
        on_closed=lambda stream: None,
    )
