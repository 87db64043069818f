"""A stream host: runs the way of many videos at once, and again when something was lost."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import ray

from actors.flow import RayFlow
from actors.gathered import gathered
from actors.pool import PoolNames
from actors.profile import Profile
from pipeline.analyse import analyse, failure, ignore
from pipeline.errors import BadInput, FailureCode, Transient
from pipeline.flow import Event, Listener
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.video.plan import Planner
from pipeline.video.source import Source

FIRST_PAUSE_S = 0.25  # before the second attempt; each is twice as long as the one before


@ray.remote(max_restarts=-1, max_task_retries=0)
class StreamHostActor:
    """Owns the order, the references and the deadline of its videos; touches no pixel."""

    def __init__(
        self, name: str, pools: PoolNames, checkpoint: str, planner: Planner, profile: Profile
    ) -> None:
        self._flow = RayFlow(
            pools.find(), Path(checkpoint), owner=name, planner=planner, profile=profile
        )
        self._name = name
        self._is_first = asyncio.Lock()
        self._is_clean = False

    async def analyse(
        self, source: Source, tasks: Tasks, video_id: str
    ) -> AsyncIterator[list[Event | Record]]:
        """The video's events as they happen, then its record. A loss starts the video anew."""
        async for batch in gathered(self._events(source, tasks, video_id)):
            yield batch

    async def record(self, source: Source, tasks: Tasks, video_id: str) -> Record:
        """The same for whoever does not listen: what is not wanted does not travel."""
        return await self._analyse_again(source, tasks, video_id, listener=ignore)

    async def process_id(self) -> int:
        return os.getpid()

    async def _events(
        self, source: Source, tasks: Tasks, video_id: str
    ) -> AsyncGenerator[Event | Record, None]:
        events: asyncio.Queue[Event | Record | BaseException] = asyncio.Queue()
        work = asyncio.create_task(self._run(source, tasks, video_id, events))
        try:
            while True:
                item = await events.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if isinstance(item, Record):
                    return
        finally:
            work.cancel()

    async def _run(
        self,
        source: Source,
        tasks: Tasks,
        video_id: str,
        events: "asyncio.Queue[Event | Record | BaseException]",
    ) -> None:
        try:
            record = await self._analyse_again(source, tasks, video_id, listener=events.put_nowait)
        except Exception as error:  # noqa: BLE001 - raised again by whoever reads the events
            events.put_nowait(error)
        else:
            events.put_nowait(record)

    async def _clean_up(self) -> None:
        """Once, before the first video: free what this host held before it was restarted."""
        async with self._is_first:
            if not self._is_clean:
                await self._flow.release(self._name)
                self._is_clean = True

    async def _analyse_again(
        self, source: Source, tasks: Tasks, video_id: str, *, listener: Listener
    ) -> Record:
        """The record, after up to `max_attempts` runs: the way of a video has no side effects."""
        lost = Transient("")
        await self._clean_up()
        for attempt in range(self._flow.profile.max_attempts):
            try:
                return await analyse(
                    source, tasks, self._flow, video_id=video_id, listener=listener
                )
            except Transient as error:
                lost = error
                await asyncio.sleep(FIRST_PAUSE_S * 2**attempt)
                await self._flow.ready()
        detail = f"{self._flow.profile.max_attempts} attempts, then: {lost}"
        refusal = BadInput(FailureCode.WORKER_LOST, detail)
        return failure(source, tasks, self._flow, video_id=video_id, error=refusal)
