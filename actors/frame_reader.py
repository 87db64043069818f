"""A process that owns decoding children: the reading stage as an actor."""

import os

import ray

from actors.metrics import Metrics, process_of_actor
from actors.parcel import FrameParcel
from pipeline.config import DecodeLimits
from pipeline.engine.ids import StreamId
from pipeline.ports import Opened
from pipeline.span import Span
from pipeline.stages.reading import ReadingStage
from pipeline.tasks.requests import View
from pipeline.video.reader import Reader
from pipeline.video.source import Source

ReadNote = tuple[tuple[bool, ...], Span]  # which frames are placeholders, and what reading took


@ray.remote(max_restarts=-1, max_task_retries=0)
class FrameReaderActor:
    """Hands out frames as parcels; a restarted one knows no video."""

    def __init__(self, limits: DecodeLimits, reader: Reader, num_threads: int) -> None:
        metrics = Metrics()
        self._stage = ReadingStage(
            limits,
            reader=reader,
            num_threads=num_threads,
            process=process_of_actor(),
            observe=lambda span, num_waiting: metrics.count(span, num_waiting=num_waiting),
        )

    async def open(self, video: StreamId, source: Source) -> Opened:
        return await self._stage.open(video, source)

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

    async def process_id(self) -> int:
        return os.getpid()
