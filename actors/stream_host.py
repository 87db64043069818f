"""A stream host: runs the way of many videos at once, and keeps those open that are asked more."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import ray

from actors.calls import loading
from actors.clients import (
    FrameReaderClient,
    FramesRef,
    LanguageDecoderClient,
    TokensRef,
    VisionEncoderClient,
)
from actors.pools import Pools
from actors.profile import Profile
from actors.terms import Terms
from pipeline.analyse import analyse, failure
from pipeline.config import Sampling
from pipeline.errors import BadInput, FailureCode
from pipeline.events import Event, Listener
from pipeline.flow import Flow
from pipeline.gathered import gathered
from pipeline.leases import LOOKS_PER_LEASE
from pipeline.pool import Pool
from pipeline.reply import Reply, Turns
from pipeline.served_model import ServedModel
from pipeline.sessions import OpenedSession, Sessions
from pipeline.tasks.records import Box, Record
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.plan import Planner
from pipeline.video.source import Source

MAX_CALLS = 10_000  # at once, one of which is each reader's and each decoder's `live`
LIVE_S = 600.0  # of a call of `live`: of who made it and died it is forgotten then
GIVE_WAY_S = 5.0  # between two looks of a host that holds what idles at whether others want room
Value = TypeVar("Value")
RayFlow = Flow[FramesRef, TokensRef]


@dataclass(frozen=True, slots=True)
class Result(Generic[Value]):
    """The end of a call whose events were listened to."""

    value: Value


def ray_flow(
    pools: Pools, checkpoint: Path, *, owner: str, planner: Planner, profile: Profile
) -> RayFlow:
    """A flow over these actors, for one owner."""
    model = ServedModel.load(
        checkpoint,
        limits=profile.decoders.limits,
        numerics=profile.numerics,
    )
    patience = {"stall_s": profile.stall_s, "answer_s": profile.answer_s}
    return Flow(
        model,
        readers=Pool([FrameReaderClient(each, **patience) for each in pools.readers]),
        encoders=Pool([VisionEncoderClient(each, **patience) for each in pools.encoders]),
        decoders=Pool([LanguageDecoderClient(each, **patience) for each in pools.decoders]),
        planner=planner,
        owner=owner,
        video_bytes=profile.video_bytes,
        patience=profile.patience,
    )


@ray.remote(max_restarts=-1, max_task_retries=0)
class StreamHostActor:
    """Owns the order, the references and the deadline of its videos; touches no pixel.

    It tries nothing twice: whoever called does, so that the attempts of a video are counted once.
    number: among the hosts of its driver.
    """

    def __init__(self, owner: str, terms: Terms, planner: Planner, number: int) -> None:
        self._terms = terms
        profile = terms.profile
        with loading():
            self._flow = ray_flow(
                terms.names.turned(number, profile.stream_hosts).find(),
                Path(terms.checkpoint),
                owner=owner,
                planner=planner,
                profile=profile,
            )
        self._sessions = Sessions(self._flow, profile.session_limits)
        self._renewal_s = profile.lease_s / LOOKS_PER_LEASE
        self._chores: list[asyncio.Task[None]] = []
        self._is_first = asyncio.Lock()
        self._is_clean = False

    async def analyse(
        self, source: Source, tasks: Tasks, video_id: str
    ) -> AsyncIterator[list[Event | Result[Record]]]:
        """The video's events as they happen, then its record."""

        async def run(listener: Listener) -> Record:
            return await analyse(source, tasks, self._flow, video_id=video_id, listener=listener)

        async for batch in self._told(run):
            yield batch

    async def record(self, source: Source, tasks: Tasks, video_id: str) -> Record:
        """The same for whoever does not listen: what is not wanted does not travel."""
        await self._clean_up()
        return await analyse(source, tasks, self._flow, video_id=video_id)

    async def refusal(self, source: Source, tasks: Tasks, video_id: str, reason: str) -> Record:
        """The record of a video whose attempts have all failed."""
        error = BadInput(FailureCode.WORKER_LOST, reason)
        return failure(source, tasks, self._flow.model.identity, video_id=video_id, error=error)

    async def open_session(self, source: Source) -> OpenedSession:
        """Open a video that stays open; Sessions explains for how long."""
        await self._clean_up()
        return await self._sessions.opened(source)

    async def ask(
        self,
        session_id: str,
        asks: Sequence[Ask | str],
        sampling: Sampling | None,
        after: Reply | None,
        turns: Turns = (),
    ) -> AsyncIterator[list[Event | Result[list[Reply]]]]:
        """What happens for the questions, then their replies."""

        async def run(listener: Listener) -> list[Reply]:
            async with self._sessions.using(session_id) as session:
                return await session.ask(
                    asks, sampling=sampling, after=after, turns=turns, listener=listener
                )

        async for batch in self._told(run):
            yield batch

    async def ground(
        self, session_id: str, query: str, times_s: Sequence[float], sampling: Sampling | None
    ) -> AsyncIterator[list[Event | Result[tuple[Box, ...]]]]:
        """What happens to find it, then where it is."""

        async def run(listener: Listener) -> tuple[Box, ...]:
            async with self._sessions.using(session_id) as session:
                return await session.ground(
                    query, times_s=times_s, sampling=sampling, listener=listener
                )

        async for batch in self._told(run):
            yield batch

    async def close_session(self, session_id: str) -> None:
        await self._sessions.close(session_id)

    async def terms(self) -> Terms:
        """What the fleet was started with."""
        return self._terms

    async def live(self) -> None:
        """Take long: whoever waits for this learns of the host's death at once."""
        await asyncio.sleep(LIVE_S)

    async def ready(self) -> None:
        """Return when every other actor answers."""
        await self._flow.ready()

    async def process_id(self) -> int:
        return os.getpid()

    async def _told(
        self, run: Callable[[Listener], Awaitable[Value]]
    ) -> AsyncGenerator[list[Event | Result[Value]], None]:
        """The events of a run as they happen, then its result."""
        await self._clean_up()
        async for batch in gathered(_events(run)):
            yield batch

    async def _clean_up(self) -> None:
        """Once, before the first video: free what this host held before it was restarted."""
        async with self._is_first:
            if not self._is_clean:
                await self._flow.release()
                self._is_clean = True
                chores = (self._renew(), self._give_way())
                self._chores = [asyncio.create_task(chore) for chore in chores]

    async def _renew(self) -> None:
        """Claim what is open, as long as this host lives."""
        while True:
            self._flow.renew()
            await asyncio.sleep(self._renewal_s)

    async def _give_way(self) -> None:
        """Let other hosts, whose streams wait for room, have what idle sessions of this one hold.

        Of one a turn: its next question watches the video again.
        """
        while True:
            await asyncio.sleep(GIVE_WAY_S)
            if self._sessions.holds_idle and await self._flow.is_short():
                await self._sessions.give_way()


async def _events(
    run: Callable[[Listener], Awaitable[Value]],
) -> AsyncGenerator[Event | Result[Value], None]:
    events: asyncio.Queue[Event | Result[Value] | BaseException] = asyncio.Queue()

    async def work() -> None:
        try:
            events.put_nowait(Result(await run(events.put_nowait)))
        except Exception as error:  # noqa: BLE001 - raised again by whoever reads the events
            events.put_nowait(error)

    working = asyncio.create_task(work())
    try:
        while True:
            item = await events.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if isinstance(item, Result):
                return
    finally:
        working.cancel()
