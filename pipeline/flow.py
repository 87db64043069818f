"""The seam between what is done with a video (analyse.py) and where it is done.

A flow opens videos, turns their frames into token chunks and runs the language model. The one in
local.py does it in this process; actors can do it elsewhere. Nothing here computes.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.engine.stream import Piece
from pipeline.stint import Stage, Stint
from pipeline.tasks.requests import Request, View
from pipeline.types import MediaInfo, SamplingPlan
from pipeline.video.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedChunk:
    """A token chunk and what it took to make it. read_s: waiting for its frames.

    tokens: whatever the streams of the same flow take, the TokenChunk or a reference to it.
    taken: to be called when the decoder has them, so that others may have the room they took.
    """

    index: int
    tokens: Any
    num_frames: int
    num_damaged: int
    read_s: float
    encode_s: float
    taken: Callable[[], None]

    @classmethod
    def of(
        cls,
        index: int,
        tokens: Any,
        is_damaged: Sequence[bool],
        *,
        read_s: float,
        encode_s: float,
        taken: Callable[[], None] = lambda: None,
    ) -> "EncodedChunk":
        """The tokens of frames that are marked as damaged or not, one mark each."""
        return cls(
            index=index,
            tokens=tokens,
            num_frames=len(is_damaged),
            num_damaged=sum(is_damaged),
            read_s=read_s,
            encode_s=encode_s,
            taken=taken,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The plan is frozen; nothing is decoded yet. num_steps: temporal patches over all views."""

    media: MediaInfo
    plan: SamplingPlan
    num_steps: int
    stint: Stint


@dataclass(frozen=True, slots=True)
class Moved:
    """A stage is through with a chunk of this many temporal patches."""

    num_steps: int
    stint: Stint
    window_index: int
    chunk_index: int

    @property
    def stage(self) -> Stage:
        return self.stint.stage


@dataclass(frozen=True, slots=True)
class Words:
    """Some more text of the answer to a request; all of it, in pieces, in order.

    stint: since the piece before, or since the request was put.
    """

    request: Request
    text: str
    stint: Stint


Event = Planned | Moved | Words
Listener = Callable[[Event], None]  # called from any thread; must not block


def each(*listeners: Listener) -> Listener:
    """One that tells them all, in this order."""

    def hear(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return hear


class Video(Protocol):
    """An open video."""

    media: MediaInfo
    plan: SamplingPlan
    etag: str
    size_bytes: int

    def still_at(self, time_s: float) -> SamplingPlan:
        """The plan of the one frame shown at time_s."""

    def token_chunks(self, view: View, *, listener: Listener) -> AsyncGenerator[EncodedChunk, None]:
        """The view's chunks in order, read ahead within bounds; tells of "read" and "encode"."""


class OpenStream(Protocol):
    """The language model looking at one view, or at text alone."""

    async def prefill(self, chunk: EncodedChunk) -> Stint:
        """Take the next chunk; returns what that took."""

    def write(self, requests: Sequence[Request]) -> AsyncGenerator[Piece, None]:
        """Answer all requests at once, piece by piece; a failure is its request's. Call it once."""


class Flow(Protocol):
    """Where videos are read, encoded and answered. BadInput is the video's fault everywhere."""

    model: str
    model_digest: str

    def open(self, source: Source) -> AbstractAsyncContextManager[Video]:
        """Open and plan a video: header and packet index only."""

    def stream(self, view: View | None) -> AbstractAsyncContextManager[OpenStream]:
        """Room in the language model for a view, or for prompts of text alone."""

    def max_parts(self, max_new_tokens: int) -> int:
        """How many texts of that many tokens fit one prompt of text alone; at least 2."""
