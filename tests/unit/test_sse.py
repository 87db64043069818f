"""Server-sent events: nothing is silent for long, and what came before can be read on from."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobs.serve.refusals import Refusal
from jobs.serve.sse import block, kept_alive
from jobs.serve.stream_file import StreamFile
from jobs.serve.stream_log import (
    AT_ONCE,
    MAX_BYTES,
    MAX_EVENTS,
    SPARE_BYTES,
    SPARE_EVENTS,
    StreamLog,
)
from tests.virtual_time import run_virtually


def test_a_comment_comes_wherever_nothing_else_does_for_so_long():
    closed = []

    async def slow() -> AsyncIterator[str]:
        try:
            await asyncio.sleep(25.0)
            yield "first"
            yield "second"
            await asyncio.sleep(12.0)
        finally:
            closed.append(True)

    async def work() -> list[str]:
        return [each async for each in kept_alive(slow(), every_s=10.0)]

    comment = ": still here\n\n"
    assert run_virtually(work()) == [comment, comment, "first", "second", comment]
    assert closed == [True]


def test_whoever_leaves_leaves_nothing_behind():
    closed = []

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                await asyncio.sleep(1.0)
                yield "tick"
        finally:
            closed.append(True)

    async def work() -> None:
        blocks = kept_alive(endless(), every_s=10.0)
        assert await anext(blocks) == "tick"
        await blocks.aclose()
        assert closed == [True]

    run_virtually(work())


def test_a_block_is_one_event_whatever_its_text_holds():
    text = block({"text": "a\n\nid: 9\r\n\u2028"}, number=3, name="words")
    assert text.startswith("id: 3\nevent: words\ndata: {")
    assert text.count("\n") == 4
    assert len(text.splitlines()) == 4  # also for who takes more than \n for a line's end


def test_a_log_is_followed_from_anywhere_to_its_end():
    async def work() -> None:
        log = StreamLog()
        log.append("a", {})
        late = asyncio.create_task(collect(log, after=0))
        rest = asyncio.create_task(collect(log, after=1))
        await asyncio.sleep(0)
        log.append("b", {})
        log.close()
        assert await late == ["a", "b"]
        assert await rest == ["b"]
        assert await collect(log, after=2) == []

    run_virtually(work())


def test_who_follows_one_answer_is_not_woken_for_another():
    async def work() -> list[str]:
        log, heard = StreamLog(), list[str]()
        following = log.follow(answer="mine")
        log.append("shared", {})
        heard.append((await anext(following)).name)
        coming = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        for _ in range(1_000):
            log.append("words", {}, answer="another")
        await asyncio.sleep(0)
        assert not coming.done()
        log.append("words", {}, answer="mine")
        heard.append((await coming).name)
        return heard

    assert run_virtually(work()) == ["shared", "words"]


def test_a_log_does_not_grow_without_bounds():
    async def work() -> None:
        log = StreamLog()
        num_events = 2 * MAX_EVENTS
        for number in range(num_events):
            log.append(str(number), {})
        log.close()
        names = await collect(log)
        assert MAX_EVENTS <= len(names) <= MAX_EVENTS + SPARE_EVENTS
        kept = range(num_events - len(names) + 1, num_events)
        assert names == ["0", *map(str, kept)]  # the first says what the video is
        assert log.last == num_events

    run_virtually(work())


def test_neither_a_log_nor_its_file_outgrows_so_many_bytes(tmp_path: Path):
    async def work() -> None:
        log, path = StreamLog(), tmp_path / "log"
        log.append("planned", {})
        await log.keep_in(StreamFile(path, b"head\n"), None)
        largest = 0
        for _ in range(3 * MAX_BYTES // 10_000):
            await log.told(log.append("words", {"text": "a" * 10_000}))
            largest = max(largest, path.stat().st_size)
        assert sum(event.size_bytes for event in log.events) <= MAX_BYTES + SPARE_BYTES
        assert log.events[0].name == "planned"
        assert MAX_BYTES < largest < 3 * MAX_BYTES
        lines = path.read_bytes().splitlines(keepends=True)
        assert lines[0] == b"head\n"
        assert lines[-len(log.events) + 1 :] == [event.line for event in log.events[1:]]
        await log.told(log.append("words", {"text": "a" * 2 * MAX_BYTES}))
        assert [event.number for event in log.events][1:] == [log.last]

    asyncio.run(work())


def test_who_has_lost_words_of_an_answer_is_told_so():
    async def work() -> None:
        log = StreamLog()
        log.append("asked", {}, answer="mine")
        following = log.follow(answer="mine")
        await anext(following)
        for _ in range(MAX_EVENTS + SPARE_EVENTS + AT_ONCE):
            log.append("words", {}, answer="mine")
        with pytest.raises(Refusal, match="ask again"):
            async for _ in following:
                pass

    run_virtually(work())


def test_an_answer_that_is_forgotten_leaves_no_event():
    log = StreamLog()
    for name in ("mine", "another", "mine"):
        log.append("words", {}, answer=name)
    log.forget({"mine"})
    assert [event.answer for event in log.events] == ["another"]


async def collect(log: StreamLog, *, after: int = 0) -> list[str]:
    return [event.name async for event in log.follow(after)]
