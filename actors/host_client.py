"""A stream host as its callers see it: a video in, its record or its replies out."""

from collections.abc import Sequence
from typing import Any, cast

import ray

from actors.calls import recover
from actors.clients import Client
from actors.stream_host import Result
from pipeline.config import Sampling
from pipeline.errors import Transient
from pipeline.events import Listener, ignore
from pipeline.reply import Reply, Turns
from pipeline.sessions import OpenedSession
from pipeline.tasks.records import Box, Record
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.source import Source


class StreamHostClient(Client):
    """A call that is given up is cancelled in the host, which then frees everything."""

    async def analyse(
        self, source: Source, tasks: Tasks, video_id: str, listener: Listener
    ) -> Record:
        """One run of the way of a video; Transient after a loss."""
        if listener is ignore:
            return cast(
                Record, await self._waited_for(self.handle.record.remote(source, tasks, video_id))
            )
        analyse = self.handle.analyse.options(num_returns="streaming")
        return cast(
            Record, await self._listened_to(analyse.remote(source, tasks, video_id), listener)
        )

    async def refusal(self, source: Source, tasks: Tasks, video_id: str, reason: str) -> Record:
        """The record of a video whose attempts have all failed."""
        call = self.handle.refusal.remote(source, tasks, video_id, reason)
        return cast(Record, await self._answer_of(call))

    async def open_session(self, source: Source) -> OpenedSession:
        """Open a video that stays open."""
        return cast(OpenedSession, await self._waited_for(self.handle.open_session.remote(source)))

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
        """As Session.ask."""
        ask = self.handle.ask.options(num_returns="streaming")
        stream = ask.remote(session_id, tuple(asks), sampling, after, tuple(turns))
        return cast(list[Reply], await self._listened_to(stream, listener))

    async def ground(
        self,
        session_id: str,
        query: str,
        *,
        times_s: Sequence[float],
        sampling: Sampling | None,
        listener: Listener,
    ) -> tuple[Box, ...]:
        """As Session.ground."""
        ground = self.handle.ground.options(num_returns="streaming")
        stream = ground.remote(session_id, query, tuple(times_s), sampling)
        return cast(tuple[Box, ...], await self._listened_to(stream, listener))

    async def close_session(self, session_id: str) -> None:
        """Have it closed; nobody waits for that."""
        self.handle.close_session.remote(session_id)

    async def all_ready(self) -> None:
        """Wait until the host answers, and somebody for every stage."""
        while True:
            if await recover(self.handle, patience_s=self._stall_s):
                try:
                    await self._answer_of(self.handle.ready.remote())
                except Transient:
                    continue
                return

    async def _waited_for(self, call: Any) -> Any:
        try:
            return await self._answer_of(call)
        except BaseException:
            # Whoever gave up wants nothing held. Its calls stay: by them the host frees everything.
            ray.cancel(call, recursive=False)
            raise

    async def _listened_to(self, stream: Any, listener: Listener) -> Any:
        """The result at the end of the events; the listener hears those."""
        try:
            async for batch in self._batches(stream):
                for item in batch:
                    if isinstance(item, Result):
                        return item.value
                    listener(item)
        except BaseException:  # as above
            ray.cancel(stream, recursive=False)
            raise
        raise Transient("the stream host ended without a result")
