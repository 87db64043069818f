"""What the leader of a replica tells its ranks, and what a rank answers: plain, small values.

Every rank of a replica runs the same commands in the same order. Tokens are chosen from logits that
are equal on all ranks, with each request's own seed, so the ranks agree without telling each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine.answer import Answer, Question
from pipeline.engine.layout import PromptWindow
from pipeline.errors import BadInput, StreamError, Transient
from pipeline.types import TokenChunk


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Reserve room for a stream over these media."""

    stream_id: str
    media: tuple[PromptWindow, ...]


@dataclass(frozen=True, slots=True)
class BeginTurn:
    """Start to answer a question on a complete stream, the only one of its call or one of many."""

    turn_id: str
    stream_id: str
    question: Question
    is_alone: bool


@dataclass(frozen=True, slots=True)
class EndTurn:
    """Free what a turn holds, finished or not."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Free everything a stream holds."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class Step:
    """One flat batch: at most one chunk a stream, and one token a turn."""

    prefills: tuple[tuple[str, TokenChunk], ...]
    turns: tuple[str, ...]


Control = OpenStream | BeginTurn | EndTurn | CloseStream
Command = Control | Step
Commands = Sequence[Command]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step did for one turn: text that became certain, and the result if it ended."""

    turn_id: str
    text: str
    result: Answer | BadInput | None


@dataclass(frozen=True, slots=True)
class Report:
    """What commands did: progress of turns, and chunks that fit no stream, by stream."""

    progress: tuple[Progress, ...] = ()
    refused: tuple[tuple[str, StreamError | Transient], ...] = ()
