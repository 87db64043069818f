"""Sessions in this process, as whoever talks to a stream host over Ray sees them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from actors.fleet_session import FleetSession
from pipeline.config import Sampling, SessionLimits
from pipeline.errors import Transient
from pipeline.events import Listener
from pipeline.flow import AnyFlow
from pipeline.reply import Reply, Turns
from pipeline.sessions import OpenedSession, Sessions
from pipeline.tasks.records import Box
from pipeline.tasks.tasks import Ask
from pipeline.video.source import Source

Value = TypeVar("Value")


class LocalHost:
    """The sessions of one flow; those that idle give way, as in a stream host."""

    def __init__(self, flow: AnyFlow, limits: SessionLimits | None = None) -> None:
        self._sessions = Sessions(flow, limits)

    def session(self, source: Source) -> FleetSession:
        """A video that stays open for many questions."""
        return FleetSession(self, _twice, source)

    async def missing(self) -> tuple[str, ...]:
        """Nothing ever is, in the process that asks."""
        return ()

    async def open_session(self, source: Source) -> OpenedSession:
        return await self._sessions.opened(source)

    async def ask(
        self,
        session_id: str,
        asks: Sequence[Ask | str],
        *,
        sampling: Sampling | None,
        after: Reply | None,
        turns: Turns,
        listener: Listener,
    ) -> list[Reply]:
        async with self._sessions.using(session_id) as session:
            return await session.ask(
                asks, sampling=sampling, after=after, turns=turns, listener=listener
            )

    async def ground(
        self,
        session_id: str,
        query: str,
        *,
        times_s: Sequence[float],
        sampling: Sampling | None,
        listener: Listener,
    ) -> tuple[Box, ...]:
        async with self._sessions.using(session_id) as session:
            return await session.ground(
                query, times_s=times_s, sampling=sampling, listener=listener
            )

    async def close_session(self, session_id: str) -> None:
        await self._sessions.close(session_id)


async def _twice(run: Callable[[], Awaitable[Value]]) -> Value:
    """Nothing is lost in one process but sessions that were forgotten meanwhile."""
    try:
        return await run()
    except Transient:
        return await run()
