"""What a flow needs of whoever reads, encodes and answers; where they are it cannot tell.

local.py has them in this process, actors/clients.py elsewhere. Frames and Tokens are what a chunk
of frames and a chunk of tokens are on their way: the chunk itself, or a reference to it.

errors: BadInput is the video's or the question's own fault; Transient a loss on the way, after
which the video can be run again from its start and comes out the same.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pipeline.engine.ids import StreamId
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Question, TextDelta
from pipeline.leases import Claim
from pipeline.span import Span
from pipeline.tasks.requests import View
from pipeline.types import MediaInfo
from pipeline.video.source import Source

Frames = TypeVar("Frames")
Tokens = TypeVar("Tokens")
Frames_contra = TypeVar("Frames_contra", contravariant=True)
Tokens_contra = TypeVar("Tokens_contra", contravariant=True)
Frames_co = TypeVar("Frames_co", covariant=True)
Tokens_co = TypeVar("Tokens_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open video: what its header says, and which bytes it is.

    sandbox: the measures of pipeline/video/confinement.py that held its decoder.
    """

    media: MediaInfo
    etag: str
    size_bytes: int
    sandbox: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Read(Generic[Frames_co]):
    """A chunk of frames, which of them are placeholders, and what it took to read them."""

    frames: Frames_co
    is_damaged: tuple[bool, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Encoded(Generic[Tokens_co]):
    """A chunk of tokens, and what it took to make them."""

    tokens: Tokens_co
    span: Span


class FrameReader(Protocol[Frames_co]):
    """Opens videos and hands out their frames, chunk by chunk."""

    async def open(self, video: StreamId, source: Source) -> Opened:
        """Start a child on the video and read its header."""

    async def read(self, video: StreamId, begins: View | None) -> Read[Frames_co]:
        """The next chunk; of another view, the first one."""

    async def close(self, video: StreamId) -> None:
        """Kill the video's children; unknown names are fine. May return before they are gone."""

    async def release(self, owner: str) -> None:
        """Close everything that this owner left open."""

    def renew(self, claim: Claim) -> None:
        """Hear what its holder still wants open, and close the rest of it; nobody waits."""

    async def ready(self) -> bool:
        """Wait until it can be called again after a loss; False when patience is at its end."""


class Encoder(Protocol[Frames_contra, Tokens_co]):
    """Turns frames into tokens."""

    async def encode(
        self, frames: Frames_contra, *, left: int, yields: bool = False
    ) -> Encoded[Tokens_co]:
        """The tokens of a chunk, in the order of the calls. left: chunks of its window after it.
        yields: as of a StreamId.
        """

    async def ready(self) -> bool:
        """As of a reader."""


class Decoder(Protocol[Tokens_contra]):
    """A language model that looks at videos and answers; as pipeline.engine explains it."""

    async def open(self, stream: StreamId, media: Sequence[PromptWindow]) -> None:
        """Reserve a stream's tokens, waiting for room; one that yields lets others go first."""

    async def prefill(
        self, stream: StreamId, tokens: Tokens_contra, *, number: int, left: int
    ) -> Span:
        """Take the stream's chunk of this number, from 0, once those before it are taken."""

    def ask(
        self, stream: StreamId, questions: Sequence[Question], *, closes: bool
    ) -> AsyncGenerator[TextDelta, None]:
        """Answer all questions at once; closes: the stream, after the last answer."""

    async def close(self, stream: StreamId) -> None:
        """Free everything the stream holds; unknown names are fine. May return before that."""

    async def release(self, owner: str) -> None:
        """Close everything that this owner left open."""

    async def is_short(self) -> bool:
        """Whether a stream waits for room."""

    def renew(self, claim: Claim) -> None:
        """As of a reader."""

    async def ready(self) -> bool:
        """As of a reader."""
