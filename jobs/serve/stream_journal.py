"""Open videos on the disk as they go: what was given up for room is opened again by its id, and
when a desk dies the next goes on with all that it had open, to the same words.

A file a stream: a line that says what it is of, then one for each of its events.

Covered: the death of the process, at any moment: a line is the system's before its event is told.
A slow disk: threads wait for it, each for one stream, and the event loop for nothing.
Not covered: the machine's.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from jobs.serve.left_stream import BodyKey, LeftStream, StreamEntry, StreamKey
from jobs.serve.shared_stream import SharedStream
from jobs.serve.stream_file import StreamFile

MAX_LEFT = 256  # streams that are on the disk alone; those left longest ago go
PART_S = 60.0  # that a file may take to be written anew
THREADS = 8  # that may wait for the disk at a time
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Left:
    """answers: their bodies' ids, by their own."""

    entry: StreamEntry
    answers: Mapping[str, str | None]

    @property
    def bodies(self) -> list[BodyKey]:
        return [(self.entry.owner, body_id) for body_id in self.answers.values() if body_id]


class StreamJournal:
    """All of one folder: `open` before the first stream, `close` after the last, and so again.

    What is on the disk alone is known at once; its file follows, one step after the other.
    """

    def __init__(self, folder: Path, *, keep_s: float) -> None:
        self._folder = folder
        self._keep_s = keep_s
        self._left: dict[str, _Left] = {}  # by id, the one left longest ago first
        self._by_key: dict[StreamKey, str] = {}
        self._by_answer: dict[str, str] = {}
        self._by_body: dict[BodyKey, str] = {}
        self._threads: Executor | None = None
        self._steps: dict[str, asyncio.Task[None]] = {}  # under way with a stream's file, the last
        self._kept: set[str] = set()  # to be on the disk alone no more, at any moment

    async def open(self) -> None:
        """Take in what was left here."""
        self._threads = ThreadPoolExecutor(THREADS, "journal")
        await self._in_thread(self._load)

    async def close(self) -> None:
        """Return when all is as it shall stay."""
        while self._steps:
            await asyncio.wait(self._steps.values())
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        self._threads = None

    async def written(self, stream_id: str) -> None:
        """Return when this one's file is as it shall stay."""
        while step := self._steps.get(stream_id):
            await asyncio.wait({step})

    def _load(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        paths = sorted(self._folder.glob("stream-*.jsonl"), key=_age_s, reverse=True)
        for num_newer, path in zip(reversed(range(len(paths))), paths, strict=True):
            is_over = num_newer >= MAX_LEFT or _age_s(path) > self._keep_s
            left = None if is_over else LeftStream.read(path)
            if left is None:
                path.unlink(missing_ok=True)
                continue
            answers = {each.entry.answer_id: each.entry.body_id for each in left.answers}
            self._note(_Left(left.entry, answers))
        for path in self._folder.glob("*.part"):
            if _age_s(path) > PART_S:
                path.unlink(missing_ok=True)

    def of_id(self, stream_id: str) -> StreamEntry | None:
        """One that is on the disk alone, by its id."""
        left = self._left.get(stream_id)
        return None if left is None else left.entry

    def of_key(self, key: StreamKey) -> StreamEntry | None:
        return self.of_id(self._by_key.get(key, ""))

    def of_answer(self, answer_id: str) -> StreamEntry | None:
        return self.of_id(self._by_answer.get(answer_id, ""))

    def of_body(self, body: BodyKey) -> StreamEntry | None:
        return self.of_id(self._by_body.get(body, ""))

    @property
    def bodies(self) -> Collection[BodyKey]:
        return self._by_body.keys()

    async def read(self, entry: StreamEntry) -> LeftStream | None:
        """What it had."""
        await self.written(entry.stream_id)
        return await self._in_thread(lambda: LeftStream.read(self._path(entry.stream_id)))

    async def keep(self, stream: SharedStream) -> None:
        """Have it on the disk, as it goes. Returns when it is there and not on the disk alone."""
        self._kept.add(stream.id)
        try:
            await self.written(stream.id)
            file = StreamFile(self._path(stream.id), stream.entry.line)
            await stream.log.keep_in(file, self._threads)
            self._strike(stream.id)
        except BaseException:
            is_left = stream.id in self._left
            self._after_last_words(stream, os.utime if is_left else Path.unlink)
            raise
        finally:
            self._kept.discard(stream.id)

    def leave(self, stream: SharedStream) -> None:
        """It is on the disk alone from now on, as it is."""
        entries = [answering.entry for answering in stream.answers.values()]
        answers = {each.answer_id: each.body_id for each in entries}
        self._note(_Left(stream.entry, answers))
        self._after_last_words(stream, os.utime)
        for stream_id in list(self._left)[: max(0, len(self._left) - MAX_LEFT)]:
            if stream_id not in self._kept:
                self.remove(stream_id)

    def end(self, stream: SharedStream) -> None:
        """It is over, and was not on the disk alone."""
        self._after_last_words(stream, Path.unlink)

    def remove(self, stream_id: str) -> None:
        """It is over, and was on the disk alone."""
        self._strike(stream_id)
        self._soon(stream_id, lambda: self._in_thread(self._path(stream_id).unlink))

    async def sweep(self) -> None:
        """Remove what was left too long ago."""
        # A file that is being touched, as its stream is left, may look old until it is.
        left = {each: what for each, what in self._left.items() if each not in self._steps}
        for stream_id in await self._in_thread(lambda: [*filter(self._is_old, left)]):
            if self._left.get(stream_id) is left[stream_id] and stream_id not in self._kept:
                self.remove(stream_id)

    def _is_old(self, stream_id: str) -> bool:
        return _age_s(self._path(stream_id)) > self._keep_s

    def _after_last_words(self, stream: SharedStream, do: Callable[[Path], None]) -> None:
        """With its file, when what has happened so far is written."""
        stream.log.let_go_of_file()

        async def step() -> None:
            await stream.log.written()
            await self._in_thread(lambda: do(self._path(stream.id)))

        self._soon(stream.id, step)

    def _soon(self, stream_id: str, step: Callable[[], Awaitable[None]]) -> None:
        """After what is under way with this stream's file; where that is gone, so is its fault."""
        before = self._steps.get(stream_id)

        async def run() -> None:
            try:
                if before is not None:
                    await asyncio.wait({before})
                with suppress(OSError):
                    await step()
            finally:
                if self._steps.get(stream_id) is task:  # all may be cut off, in any order
                    del self._steps[stream_id]

        task = self._steps[stream_id] = asyncio.create_task(run())

    async def _in_thread(self, do: Callable[[], Value]) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._threads, do)

    def _note(self, left: _Left) -> None:
        stream_id = left.entry.stream_id
        self._left[stream_id] = left
        self._by_key[left.entry.key] = stream_id
        self._by_answer.update(dict.fromkeys(left.answers, stream_id))
        self._by_body.update(dict.fromkeys(left.bodies, stream_id))

    def _strike(self, stream_id: str) -> None:
        left = self._left.pop(stream_id, None)
        if left is None:
            return
        self._by_key.pop(left.entry.key, None)
        for answer_id in left.answers:
            self._by_answer.pop(answer_id, None)
        for body in left.bodies:
            self._by_body.pop(body, None)

    def _path(self, stream_id: str) -> Path:
        return self._folder / f"{stream_id}.jsonl"


def _age_s(path: Path) -> float:
    """Since it was last written; for ever of one that is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")
