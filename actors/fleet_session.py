"""A video that stays open in a fleet: the Session of a program that has Ray between it and it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from pipeline.config import Sampling
from pipeline.errors import BadInput, FailureCode, SessionClosed, Transient
from pipeline.events import Listener, ignore
from pipeline.reply import Reply, Turns
from pipeline.sessions import OpenedSession
from pipeline.tasks.records import Box
from pipeline.tasks.tasks import Ask
from pipeline.types import MediaInfo, SamplingPlan
from pipeline.video.source import Source

Value = TypeVar("Value")


class Attempt(Protocol):
    """Runs something again after a loss, as often as the fleet's profile allows."""

    async def __call__(self, run: Callable[[], Awaitable[Value]]) -> Value: ...


class SessionHost(Protocol):
    """Where sessions are: a stream host over Ray, or Sessions in this process."""

    async def open_session(self, source: Source) -> OpenedSession: ...

    async def ask(
        self,
        session_id: str,
        asks: Sequence[Ask | str],
        *,
        sampling: Sampling | None,
        after: Reply | None,
        turns: Turns,
        listener: Listener,
    ) -> list[Reply]: ...

    async def ground(
        self,
        session_id: str,
        query: str,
        *,
        times_s: Sequence[float],
        sampling: Sampling | None,
        listener: Listener,
    ) -> tuple[Box, ...]: ...

    async def close_session(self, session_id: str) -> None: ...


class FleetSession:
    """As pipeline.session.Session; after a loss the video is opened again for the next question.

    Use as `async with`; then media and plan are known.

    errors: BadInput for the video's own fault, Transient if losses do not end, SessionClosed once
    it was closed. Words may be heard again after a loss; they are the same.
    """

    def __init__(self, host: SessionHost, attempt: Attempt, source: Source) -> None:
        self.source = source
        self._host = host
        self._attempt = attempt
        self._facts: OpenedSession | None = None
        self._is_lost = False
        self._is_closed = False

    @property
    def media(self) -> MediaInfo:
        """What the header says of the video."""
        return self._opened.media

    @property
    def plan(self) -> SamplingPlan:
        """What of it the model looks at."""
        return self._opened.plan

    @property
    def etag(self) -> str:
        """Identity of the video's bytes."""
        return self._opened.plan.source_id

    async def open(self) -> None:
        """Read the header and plan. BadInput for the video's own fault."""
        self._require_not_closed()
        self._facts = await self._attempt(lambda: self._host.open_session(self.source))

    async def ask(
        self,
        questions: Sequence[Ask | str],
        *,
        sampling: Sampling | None = None,
        after: Reply | None = None,
        turns: Turns = (),
        listener: Listener = ignore,
    ) -> list[Reply]:
        """Answer all questions, of the whole video; after, turns: as pipeline's session."""

        async def run() -> list[Reply]:
            return await self._host.ask(
                self._opened.session_id,
                questions,
                sampling=sampling,
                after=after,
                turns=turns,
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
        """Free everything; twice is once. What is asked meanwhile is not tried again."""
        self._is_closed = True
        if self._facts is not None:
            await self._host.close_session(self._facts.session_id)

    async def _on_open(self, run: Callable[[], Awaitable[Value]]) -> Value:
        self._require_not_closed()
        if self._is_lost:
            await self._open_again()
        try:
            return await run()
        except Transient:
            self._is_lost = True  # or may be: to open it once more costs a header
            raise

    def _require_not_closed(self) -> None:
        if self._is_closed:
            raise SessionClosed

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
