"""What the callers of one open stream wait for: chunks to be in the cache, words to come."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.engine.deltas import Deltas
from pipeline.engine.ids import GenerationId, StreamId
from pipeline.span import Span
from pipeline.types import TokenChunk

Value = TypeVar("Value")


def settle(done: "asyncio.Future[Value]", outcome: Value | BaseException) -> None:
    """Give a future its result or its error, unless nobody waits for it any more.

    To ask first whether it is cancelled would not do: asyncio cancels the main task from within the
    handler of SIGINT, between any two instructions.
    """
    with suppress(asyncio.InvalidStateError):
        if isinstance(outcome, BaseException):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)


@dataclass(slots=True, eq=False)
class WaitingChunk:
    """A chunk to be taken in. left: how many of its window come after it."""

    chunk: TokenChunk
    left: int
    done: "asyncio.Future[Span]"


@dataclass(slots=True, eq=False)
class Writer:
    """Where the words of a generation go. is_running: it has room, so that steps work on it."""

    question_index: int
    deltas: Deltas
    is_running: bool = False


@dataclass(slots=True, eq=False)
class Lane:
    """All of them for one stream. Chunks are taken by their numbers, whichever arrives first."""

    stream: StreamId
    chunks: dict[int, WaitingChunk] = field(default_factory=dict)
    num_taken: int = 0
    in_step: WaitingChunk | None = None
    writers: dict[GenerationId, Writer] = field(default_factory=dict)

    @property
    def next_chunk(self) -> WaitingChunk | None:
        """The one that can be taken now; none while a step takes the one before."""
        return None if self.in_step else self.chunks.get(self.num_taken)

    @property
    def running(self) -> tuple[GenerationId, ...]:
        """Generations that want a word of every step."""
        return tuple(name for name, writer in self.writers.items() if writer.is_running)

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits for a chunk to be taken in, or for words."""
        return bool(self.writers) or any(not each.done.done() for each in self._waiting())

    def take(self) -> TokenChunk:
        """Take the next chunk into a step."""
        self.in_step = self.chunks.pop(self.num_taken)
        self.num_taken += 1
        return self.in_step.chunk

    def give_up(self, error: BaseException) -> None:
        """Tell everybody who waits, and forget them."""
        for waiting in self._waiting():
            settle(waiting.done, error)
        for writer in self.writers.values():
            writer.deltas.fail(writer.question_index, error)
        self.chunks, self.writers, self.in_step = {}, {}, None

    def _waiting(self) -> Iterator[WaitingChunk]:
        yield from self.chunks.values()
        if self.in_step:
            yield self.in_step
