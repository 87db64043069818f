"""What happened on an open video, numbered: whoever comes late or comes back gets the rest.

Covered: a log is bounded by its events and by its bytes, in memory and on the disk; who is so far
behind that it has lost words of an answer is told so, and never gets a text with a hole.
"""

import asyncio
import json
from bisect import bisect_right
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
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
    """Append on one event loop, follow on the same. events: what an earlier life of it had."""

    def __init__(self, events: Sequence[LoggedEvent] = ()) -> None:
        self._events = list(events)  # by number
        self._last = events[-1].number if events else 0
        self._num_bytes = sum(event.size_bytes for event in events)
        self._lost_to = 0
        self._file: StreamFile | None = None
        self._is_closed = False
        self._waiting: dict[str | None, asyncio.Event] = {}  # by whose events they follow
        self.num_followers = 0

    @property
    def last(self) -> int:
        """The number of the latest event."""
        return self._last

    @property
    def events(self) -> Sequence[LoggedEvent]:
        """Those that it still has."""
        return self._events

    def require_reached(self, number: int, *, param: str) -> None:
        """Refusal (422) for an event that never was: what comes after it would be waited for in
        vain. param: what the client calls it.
        """
        if number > self._last:
            told = f"there is no event {number} yet; the newest is {self._last}"
            raise Refusal(422, "invalid", told, param)

    def append(
        self,
        name: str,
        data: dict[str, Any],
        *,
        answer: str | None = None,
        kept: dict[str, Any] | None = None,
    ) -> LoggedEvent:
        """On the disk first, if it is kept there: whoever hears of an event finds it there."""
        self._last += 1
        event = LoggedEvent(
            self._last, name, json.dumps(data), answer, json.dumps(kept) if kept else None
        )
        self._events.append(event)
        self._num_bytes += event.size_bytes
        self._drop_oldest()
        if self._file is not None:
            self._file.add(event.line)
            if self._file.size_bytes > 2 * (self._num_bytes + SPARE_BYTES):
                self._write_anew(self._file)
        self._wake(*([None, answer] if answer else self._waiting))
        return event

    def keep_in(self, file: StreamFile) -> None:
        """Have all of it there, too, from now on."""
        self._file = file
        self._write_anew(file)

    def let_go_of_file(self) -> None:
        """It stays as it is."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def forget(self, answers: Collection[str]) -> None:
        """Nobody can ask for these answers any more."""
        self._events = [event for event in self._events if event.answer not in answers]
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
            start = bisect_right(self._events, after, key=_number)
            news = self._events[start : start + AT_ONCE]
            for event in news:
                after = event.number
                if answer is None or event.answer in (None, answer):
                    yield event
            if not news:
                if self._is_closed:
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

    def _write_anew(self, file: StreamFile) -> None:
        file.replace(event.line for event in self._events)

    def _wake(self, *followed: str | None) -> None:
        for each in [*followed]:
            if grown := self._waiting.pop(each, None):
                grown.set()


def _number(event: LoggedEvent) -> int:
    return event.number
