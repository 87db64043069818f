"""A process that owns decoding children: the reading stage as an actor."""

import asyncio
import os

import ray

from actors.calls import end_process
from actors.host_watch import until_gone
from actors.metrics import Metrics, process_of_actor
from actors.parcel import FrameParcel
from pipeline.config import DecodeLimits
from pipeline.engine.ids import StreamId
from pipeline.leases import Claim, Lessor
from pipeline.ports import Opened
from pipeline.span import Span
from pipeline.stages.reading import ReadingStage
from pipeline.tasks.requests import View
from pipeline.video.confinement import hide_process
from pipeline.video.libraries import Reader
from pipeline.video.source import Source, require_seen

LEASE_S = 240.0  # twice the usual silence after which an actor is dead
ReadNote = tuple[tuple[bool, ...], Span]  # which frames are placeholders, and what reading took


@ray.remote(max_restarts=-1, max_task_retries=0)
class FrameReaderActor:
    """Hands out frames as parcels; a restarted one knows no video."""

    def __init__(
        self, limits: DecodeLimits, reader: Reader, num_threads: int, lease_s: float = LEASE_S
    ) -> None:
        hide_process()  # its environment has what opens stores
        metrics = Metrics()
        self._stage = ReadingStage(
            limits,
            reader=reader,
            num_threads=num_threads,
            process=process_of_actor(),
            observe=lambda span, num_waiting: metrics.count(span, num_waiting=num_waiting),
            on_failure=end_process,
        )
        self._lessor = Lessor(
            lambda: self._stage.videos, self._stage.close, lease_s=lease_s, until_gone=until_gone
        )

    async def sandbox(self) -> tuple[str, ...]:
        """The measures of pipeline/video/confinement.py that hold decoders here."""
        return await self._stage.sandbox()

    async def open(self, video: StreamId, source: Source) -> Opened:
        self._lessor.watch(video.owner)
        return await self._stage.open(video, source)

    async def look(self, source: Source) -> None:
        """Raise what opening this file would, if it is not there, or another one."""
        await asyncio.to_thread(require_seen, source)

    @ray.method(num_returns=2)
    async def read(
        self, video: StreamId, begins: View | None = None
    ) -> tuple[FrameParcel, ReadNote]:
        """The next chunk, or a new view's first one, and a note on it, which travels by value."""
        read = await self._stage.read(video, begins)
        return FrameParcel.pack(read.frames), (read.is_damaged, read.span)

    async def close(self, video: StreamId) -> None:
        await self._stage.close(video)

    async def release(self, owner: str) -> None:
        await self._stage.release(owner)

    async def renew(self, claim: Claim) -> None:
        """Close what its holder wants no more."""
        await self._lessor.renew(claim)

    async def process_id(self) -> int:
        return os.getpid()
