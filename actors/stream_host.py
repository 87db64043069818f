"""A stream host: runs the way of many videos at once, and keeps those open that are asked more."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import ray
import torch

from actors.calls import loading
from actors.clients import (
    FrameReaderClient,
    FramesRef,
    LanguageDecoderClient,
    TokensRef,
    VisionEncoderClient,
)
from actors.pools import PoolNames, Pools
from actors.profile import Profile
from pipeline.analyse import analyse, failure
from pipeline.config import Sampling
from pipeline.errors import BadInput, FailureCode
from pipeline.events import Event, Listener
from pipeline.flow import Flow
from pipeline.gathered import gathered
from pipeline.pool import Pool
from pipeline.served_model import ServedModel
from pipeline.session import Reply
from pipeline.sessions import Sessions
from pipeline.tasks.records import Box, Record
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.types import MediaInfo, SamplingPlan
from pipeline.video.plan import Planner
from pipeline.video.source import Source

Value = TypeVar("Value")
RayFlow = Flow[FramesRef, TokensRef]


@dataclass(frozen=True, slots=True)
class Result(Generic[Value]):
    """The end of a call whose events were listened to."""

    value: Value


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A video that stays open in a stream host."""

    session_id: str
    media: MediaInfo
    plan: SamplingPlan


def ray_flow(
    pools: Pools, checkpoint: Path, *, owner: str, planner: Planner, profile: Profile
) -> RayFlow:
    """A flow over these actors, for one owner."""
    model = ServedModel.load(
        checkpoint,
        limits=profile.decoders.limits,
        int8=profile.decoders.int8,
        dtype=getattr(torch, profile.dtype),
    )
    stall_s = profile.stall_s
    return Flow(
        model,
        readers=Pool([FrameReaderClient(each, stall_s=stall_s) for each in pools.readers]),
        encoders=Pool([VisionEncoderClient(each, stall_s=stall_s) for each in pools.encoders]),
        decoders=Pool([LanguageDecoderClient(each, stall_s=stall_s) for each in pools.decoders]),
        planner=planner,
        owner=owner,
        video_bytes=profile.video_bytes,
    )


@ray.remote(max_restarts=-1, max_task_retries=0)
class StreamHostActor:
    """Owns the order, the references and the deadline of its videos; touches no pixel.

    It tries nothing twice: whoever called does, so that the attempts of a video are counted once.
    """

    def __init__(
        self, name: str, pools: PoolNames, checkpoint: str, planner: Planner, profile: Profile
    ) -> None:
        with loading():
            self._flow = ray_flow(
                pools.find(), Path(checkpoint), owner=name, planner=planner, profile=profile
            )
        self._sessions = Sessions(self._flow, profile.sessions.limits)
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
        session_id, session = await self._sessions.open(source)
        return OpenedSession(session_id, session.media, session.plan)

    async def ask(
        self,
        session_id: str,
        asks: Sequence[Ask | str],
        sampling: Sampling | None,
        after: Reply | None,
    ) -> AsyncIterator[list[Event | Result[list[Reply]]]]:
        """What happens for the questions, then their replies."""

        async def run(listener: Listener) -> list[Reply]:
            async with self._sessions.using(session_id) as session:
                return await session.ask(asks, sampling=sampling, after=after, listener=listener)

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
