"""A video that stays open in a fleet: the Session of a program that has Ray between it and it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from actors.host_client import StreamHostClient
from actors.stream_host import OpenedSession
from pipeline.config import Sampling
from pipeline.errors import BadInput, FailureCode, Transient
from pipeline.events import Listener, ignore
from pipeline.session import Reply
from pipeline.tasks.records import Box
from pipeline.tasks.tasks import Ask
from pipeline.types import MediaInfo, SamplingPlan
from pipeline.video.source import Source

Value = TypeVar("Value")


class Attempt(Protocol):
    """Runs something again after a loss, as often as the fleet's profile allows."""

    async def __call__(self, run: Callable[[], Awaitable[Value]]) -> Value: ...


class FleetSession:
    """As pipeline.session.Session; after a loss the video is opened again for the next question.

    Use as `async with`; then media and plan are known.

    errors: BadInput for the video's own fault, Transient if losses do not end. Words may be heard
    again after a loss; they are the same.
    """

    def __init__(self, host: StreamHostClient, attempt: Attempt, source: Source) -> None:
        self.source = source
        self._host = host
        self._attempt = attempt
        self._facts: OpenedSession | None = None
        self._is_lost = False

    @property
    def media(self) -> MediaInfo:
        """What the header says of the video."""
        return self._opened.media

    @property
    def plan(self) -> SamplingPlan:
        """What of it the model looks at."""
        return self._opened.plan

    async def open(self) -> None:
        """Read the header and plan. BadInput for the video's own fault."""
        self._facts = await self._attempt(lambda: self._host.open_session(self.source))

    async def ask(
        self,
        questions: Sequence[Ask | str],
        *,
        sampling: Sampling | None = None,
        after: Reply | None = None,
        listener: Listener = ignore,
    ) -> list[Reply]:
        """Answer all questions, of the whole video; after: the answer they follow up."""

        async def run() -> list[Reply]:
            return await self._host.ask(
                self._opened.session_id,
                questions,
                sampling=sampling,
                after=after,
                listener=listener,
            )

        return await self._attempt(lambda: self._on_open(run))

    async def ground(
        self,
        query: str,
        *,
        times_s: Sequence[float] = (),
        sampling: Sampling | None = None,
        listener: Listener = ignore,
    ) -> tuple[Box, ...]:
        """Where something is in the frames shown at these times; without any, half-way through."""

        async def run() -> tuple[Box, ...]:
            return await self._host.ground(
                self._opened.session_id,
                query,
                times_s=times_s,
                sampling=sampling,
                listener=listener,
            )

        return await self._attempt(lambda: self._on_open(run))

    async def close(self) -> None:
        """Free everything; twice is once."""
        if self._facts is not None:
            await self._host.close_session(self._facts.session_id)

    async def _on_open(self, run: Callable[[], Awaitable[Value]]) -> Value:
        if self._is_lost:
            await self._open_again()
        try:
            return await run()
        except Transient:
            self._is_lost = True  # or may be: to open it once more costs a header
            raise

    async def _open_again(self) -> None:
        await self._host.close_session(self._opened.session_id)
        opened = await self._host.open_session(self.source)
        if opened.plan.hash != self._opened.plan.hash:
            await self._host.close_session(opened.session_id)
            detail = "the video is another one than when it was opened"
            raise BadInput(FailureCode.SOURCE_CHANGED, detail)
        self._facts, self._is_lost = opened, False

    @property
    def _opened(self) -> OpenedSession:
        if self._facts is None:
            raise RuntimeError("a session is used as `async with`")
        return self._facts

    async def __aenter__(self) -> "FleetSession":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
