"""What answers, as the endpoint sees it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from actors.fleet_session import FleetSession
from pipeline.config import EngineLimits, Sampling
from pipeline.video.source import Source


async def nothing() -> tuple[str, ...]:
    """Of a place that is this process."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVideos:
    """session: opens a video. missing: stages for which nobody is up. sampling: the checkpoint's
    own. kv_tokens: room for keys and values, in all decoders together; question_tokens: what each
    stream takes beside its video.
    """

    name: str
    session: Callable[[Source], FleetSession]
    sampling: Sampling
    missing: Callable[[], Awaitable[Sequence[str]]] = nothing
    kv_tokens: int = EngineLimits().max_tokens
    question_tokens: int = EngineLimits().question_tokens
