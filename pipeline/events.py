"""What happens on the way of a video, for whoever watches: progress, words, timelines."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.span import Span, Stage
from pipeline.tasks.requests import Request
from pipeline.types import MediaInfo, SamplingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The plan is frozen; nothing is decoded yet. num_steps: temporal patches over all views."""

    media: MediaInfo
    plan: SamplingPlan
    num_steps: int
    span: Span


@dataclass(frozen=True, slots=True)
class Moved:
    """A stage is through with a chunk of this many temporal patches.

    is_damaged: which of its frames are placeholders; of "read" alone.
    """

    num_steps: int
    span: Span
    window_index: int
    chunk_index: int
    is_damaged: tuple[bool, ...] = ()

    @property
    def stage(self) -> Stage:
        return self.span.stage


@dataclass(frozen=True, slots=True)
class Words:
    """Some more text of the answer to a request; all of it, in pieces, in order.

    The last one may be empty. span: since the piece before, or since the request was put; its
    num_tokens are those of the whole answer, and come with the last one.
    """

    request: Request
    text: str
    span: Span


Event = Planned | Moved | Words
Listener = Callable[[Event], None]  # called from any thread; must not block


def ignore(event: Event) -> None:
    """The listener of whoever only wants the result."""


def each(*listeners: Listener) -> Listener:
    """One that tells them all, in this order."""

    def hear(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return hear
