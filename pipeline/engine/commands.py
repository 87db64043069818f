"""What the leader of an engine tells its ranks, and what a rank answers: plain, small values.

Every rank runs the same commands in the same order. Tokens are chosen from logits that are equal on
all ranks, with each request's own seed, so the ranks agree without telling each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine.ids import GenerationId, StreamId
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Completion, Question
from pipeline.errors import StreamError, Transient
from pipeline.types import TokenChunk


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Reserve room for a stream over these media."""

    stream: StreamId
    media: tuple[PromptWindow, ...]


@dataclass(frozen=True, slots=True)
class BeginGeneration:
    """Start to answer a question on a complete stream, the only one of its call or one of many."""

    generation: GenerationId
    question: Question
    is_alone: bool

    @property
    def stream(self) -> StreamId:
        return self.generation.stream


@dataclass(frozen=True, slots=True)
class EndGeneration:
    """Free what a generation holds, finished or not."""

    generation: GenerationId

    @property
    def stream(self) -> StreamId:
        return self.generation.stream


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Free everything a stream holds."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class Step:
    """One flat batch: at most one chunk a stream, and one token a generation."""

    prefills: tuple[tuple[StreamId, TokenChunk], ...] = ()
    generations: tuple[GenerationId, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.prefills or self.generations)


Control = OpenStream | BeginGeneration | EndGeneration | CloseStream
Command = Control | Step
Commands = Sequence[Command]


@dataclass(frozen=True, slots=True)
class Report:
    """What a step did.

    written: text that became certain of each of its generations, and the completion of those that
    ended. refused: chunks that fit no stream, by stream.
    """

    written: tuple[tuple[GenerationId, str, Completion | None], ...] = ()
    refused: tuple[tuple[StreamId, StreamError | Transient], ...] = ()
