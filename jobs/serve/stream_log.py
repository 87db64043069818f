"""What happened on an open video, numbered: whoever comes late or comes back gets the rest.

Covered: a log is bounded by its events and by its bytes, in memory and on the disk; who is so far
behind that it has lost words of an answer is told so, and never gets a text with a hole. A disk
that is slow holds up whoever follows this log, and nobody else.
"""

import asyncio
import json
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobs.serve.refusals import Refusal
from jobs.serve.stream_file import StreamFile

MAX_EVENTS = 20_000  # of one log; whoever is further behind has lost the oldest
SPARE_EVENTS = 1_000  # beyond them, before the oldest go together
MAX_BYTES = 4 << 20  # of their data as JSON
SPARE_BYTES = 256 << 10
AT_ONCE = 64  # events that who follows holds while it waits for its client


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event; numbers count up from 1. text: its data as JSON, as it is sent. answer: whose it
    is, if it is one answer's alone. kept: JSON that is told to nobody, for who takes the log over.
    """

    number: int
    name: str
    text: str
    answer: str | None = None
    kept: str | None = None

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.text)
        return data

    @property
    def size_bytes(self) -> int:
        return len(self.text) + len(self.kept or "")

    @property
    def line(self) -> bytes:
        """As it stands in a file; `of_line` reads it."""
        whose = json.dumps(self.answer)
        kept = self.kept or "null"
        return f'[{self.number},"{self.name}",{whose},{self.text},{kept}]\n'.encode()

    @classmethod
    def of_line(cls, line: bytes) -> "LoggedEvent":
        number, name, answer, data, kept = json.loads(line)
        return cls(number, name, json.dumps(data), answer, json.dumps(kept) if kept else None)


class StreamLog:
    """Append on one event loop, follow on the same. events: what an earlier life of it had.

    An event is told when it is on the disk, if the log is kept there: whoever hears of it finds it
    there.
    """

    def __init__(self, events: Sequence[LoggedEvent] = ()) -> None:
        self._events = list(events)  # by number
        self._last = self._told = events[-1].number if events else 0
        self._num_bytes = sum(event.size_bytes for event in events)
        self._lost_to = 0
        self._file: StreamFile | None = None
        self._file_ends: int | None = None  # with this event, where it is let go of
        self._threads: Executor | None = None
        self._writing: asyncio.Task[None] | None = None
        self._is_closed = False
        self._waiting: dict[str | None, asyncio.Event] = {}  # by whose events they follow
        self.num_followers = 0

    @property
    def last(self) -> int:
        """The number of the latest event that anybody may have heard of."""
        return self._told

    @property
    def events(self) -> Sequence[LoggedEvent]:
        """Those that it still has."""
        return self._events

    def require_reached(self, number: int, *, param: str) -> None:
        """Refusal (422) for an event that never was: what comes after it would be waited for in
        vain. param: what the client calls it.
        """
        if number > self.last:
            told = f"there is no event {number} yet; the newest is {self.last}"
            raise Refusal(422, "invalid", told, param)

    def append(
        self,
        name: str,
        data: dict[str, Any],
        *,
        answer: str | None = None,
        kept: dict[str, Any] | None = None,
    ) -> LoggedEvent:
        """Have it told, to the disk first if it is kept there."""
        self._last += 1
        event = LoggedEvent(
            self._last, name, json.dumps(data), answer, json.dumps(kept) if kept else None
        )
        self._events.append(event)
        self._num_bytes += event.size_bytes
        self._drop_oldest()
        if self._file is None:
            self._tell(event.number)
        else:
            self._write_soon(self._file)
        return event

    async def keep_in(self, file: StreamFile, threads: Executor | None) -> None:
        """Have all of it there, too, from now on, written in these threads (or the loop's own), one
        at a time. Returns when what there is has been written.
        """
        self._file, self._threads, self._file_ends, self._told = file, threads, None, 0
        self._write_soon(file)
        await self.written()

    def let_go_of_file(self) -> None:
        """It stays as it is, when what has happened so far is written."""
        if self._file is not None:
            self._file_ends = self._last
            self._write_soon(self._file)

    async def told(self, event: LoggedEvent) -> None:
        """Return when whoever follows may have heard of it."""
        while self._told < event.number:
            await self._waiting.setdefault(None, asyncio.Event()).wait()

    async def written(self) -> None:
        """Return when nothing more is to be written."""
        while self._writing is not None:
            await asyncio.wait({self._writing})

    def forget(self, answers: Collection[str]) -> None:
        """Nobody can ask for these answers any more. What is yet to be written of them stays."""
        self._events = [
            event
            for event in self._events
            if event.answer not in answers or event.number > self._told
        ]
        self._num_bytes = sum(event.size_bytes for event in self._events)

    def close(self) -> None:
        """Nothing comes any more."""
        self._is_closed = True
        self._wake(*self._waiting)

    async def follow(
        self, after: int = 0, *, answer: str | None = None
    ) -> AsyncIterator[LoggedEvent]:
        """Everything after this number, and then what happens, until the log is closed.

        answer: nothing that is another answer's; those do not even wake who follows one. Refusal
        (503) where some of it is lost.
        """
        while True:
            if answer is not None and after < self._lost_to:
                raise Refusal(503, "lost", "words after that event are kept no more; ask again")
            grown = self._waiting.setdefault(answer, asyncio.Event())
            news = self._between(after, self._told)[:AT_ONCE]
            for event in news:
                after = event.number
                if answer is None or event.answer in (None, answer):
                    yield event
            if not news:
                if self._is_closed and self._told == self._last:
                    return
                await grown.wait()

    def _drop_oldest(self) -> None:
        """All but the first, which says what the video is, and the latest."""
        if (
            len(self._events) <= MAX_EVENTS + SPARE_EVENTS
            and self._num_bytes <= MAX_BYTES + SPARE_BYTES
        ):
            return
        num_dropped = 0
        while len(self._events) - num_dropped > MAX_EVENTS or (
            self._num_bytes > MAX_BYTES and len(self._events) - num_dropped > 2
        ):
            num_dropped += 1
            self._num_bytes -= self._events[num_dropped].size_bytes
        self._lost_to = self._events[num_dropped].number
        del self._events[1 : 1 + num_dropped]

    def _write_soon(self, file: StreamFile) -> None:
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(file))

    async def _write(self, file: StreamFile) -> None:
        """What has happened, and what happens meanwhile: all that comes during one write makes the
        next.
        """
        try:
            while self._told < (end := self._file_ends or self._last):
                await self._in_thread(self._due(file, end))
                self._tell(end)
            if self._file_ends is not None:
                await self._in_thread(file.close)
                self._file = self._file_ends = None
                self._tell(self._last)
        finally:
            self._writing = None

    async def _in_thread(self, write: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, write)

    def _due(self, file: StreamFile, end: int) -> Callable[[], None]:
        """What brings the file up to this event."""
        is_too_long = file.size_bytes > 2 * (self._num_bytes + SPARE_BYTES)
        is_behind = self._told <= self._lost_to  # as at its beginning: what was dropped is missing
        write, since = (file.replace, 0) if is_too_long or is_behind else (file.add, self._told)
        return partial(write, [event.line for event in self._between(since, end)])

    def _between(self, after: int, end: int) -> Sequence[LoggedEvent]:
        """Those that there still are; `end` with them."""
        start, stop = (bisect_right(self._events, number, key=_number) for number in (after, end))
        return self._events[start:stop]

    def _tell(self, end: int) -> None:
        """Everything up to this event may be heard."""
        answers = {event.answer for event in self._between(self._told, end)}
        is_all = None in answers or self._told < self._lost_to or self._is_closed
        self._told = end
        self._wake(*(self._waiting if is_all else {None, *answers}))

    def _wake(self, *followed: str | None) -> None:
        for each in [*followed]:
            if grown := self._waiting.pop(each, None):
                grown.set()


def _number(event: LoggedEvent) -> int:
    return event.number
