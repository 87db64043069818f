"""The sessions that are open on one flow: who they are, and what they may hold while they idle."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

from pipeline.config import SessionLimits
from pipeline.errors import Transient
from pipeline.flow import AnyFlow
from pipeline.session import Session
from pipeline.types import MediaInfo, SamplingPlan
from pipeline.video.source import Source


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A video that stays open, by whatever way one talks to it."""

    session_id: str
    media: MediaInfo
    plan: SamplingPlan


class Sessions:
    """Opens sessions under ids; makes idle ones give way, first those that are idle longest: to
    their limits, and to whoever waits for room.
    """

    def __init__(self, flow: AnyFlow, limits: SessionLimits | None = None) -> None:
        self._flow = flow
        self._limits = limits or SessionLimits()
        self._sessions: dict[str, Session] = {}
        self._idle: dict[Session, list[asyncio.TimerHandle]] = {}  # idle longest first
        self._num_users: Counter[Session] = Counter()
        self._chores: set[asyncio.Task[None]] = set()

    @property
    def num_open(self) -> int:
        return len(self._sessions)

    async def open(self, source: Source) -> tuple[str, Session]:
        """Open a video; its id is good until it is closed or forgotten. Raises BadInput."""
        session = Session(self._flow, source, on_waiting=self.give_way)
        await session.open()
        session_id = uuid4().hex
        self._sessions[session_id] = session
        self._let_idle(session)
        return session_id, session

    async def opened(self, source: Source) -> OpenedSession:
        """The same for whoever is not where the session is."""
        session_id, session = await self.open(source)
        return OpenedSession(session_id, session.media, session.plan)

    @asynccontextmanager
    async def using(self, session_id: str) -> AsyncIterator[Session]:
        """The session of this id; Transient if it is not open any more: open it again."""
        session = self._sessions.get(session_id)
        if session is None:
            raise Transient("no such session: it was closed, forgotten, or lost in a restart")
        self._wake(session)
        self._num_users[session] += 1
        try:
            yield session
        finally:
            self._num_users[session] -= 1
            if not self._num_users[session]:
                del self._num_users[session]
                self._let_idle(session)

    async def close(self, session_id: str) -> None:
        """Free everything; unknown ids are fine."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._wake(session)
            await session.close()

    def _wake(self, session: Session) -> None:
        for timer in self._idle.pop(session, []):
            timer.cancel()

    def _let_idle(self, session: Session) -> None:
        if session not in self._sessions.values():
            return
        loop = asyncio.get_running_loop()
        self._idle[session] = [
            loop.call_later(self._limits.idle_s, self._do, session.rest),
            loop.call_later(self._limits.forget_s, self._do, lambda: self._forget(session)),
        ]
        held = sum(each.num_tokens for each in self._idle)
        for longest in list(self._idle):
            if held <= self._limits.max_tokens:
                break
            held -= longest.num_tokens
            self._do(longest.rest)

    @property
    def holds_idle(self) -> bool:
        """Whether one that nobody asks right now holds something in a decoder."""
        return any(session.num_tokens for session in self._idle)

    async def give_way(self) -> None:
        """Somebody waits for room: of those who idle with something, the longest idle frees it."""
        holding = (session for session in self._idle if session.num_tokens)
        longest = next(holding, None)
        if longest is not None:
            await longest.rest()

    async def _forget(self, session: Session) -> None:
        if session not in self._idle:  # somebody has come back to it just now
            return
        for session_id in [key for key, each in self._sessions.items() if each is session]:
            await self.close(session_id)

    def _do(self, chore: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await chore()

        task = asyncio.get_running_loop().create_task(run())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
