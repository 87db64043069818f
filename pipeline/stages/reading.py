"""Reading: opens videos in disposable children, hands out their frames chunk by chunk.

A chunk is read when it is asked for; until then the child decodes ahead into a ring of fixed size.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeVar

from pipeline.config import DecodeLimits
from pipeline.engine.ids import StreamId
from pipeline.errors import Transient
from pipeline.ports import Opened, Read
from pipeline.span import Process, Span
from pipeline.stages import precedence
from pipeline.tasks.requests import View
from pipeline.types import FrameChunk
from pipeline.video.reader import Media, Reader, open_media
from pipeline.video.source import Source, identity

Result = TypeVar("Result")


class OpenVideo:
    """One video in this process; whoever works on it holds its lock."""

    def __init__(self, process: Process) -> None:
        self.lock = asyncio.Lock()
        self._process = process
        self._held = ExitStack()
        self._media: Media | None = None
        self._chunks: Iterator[FrameChunk] = iter(())

    def open(self, source: Source, limits: DecodeLimits) -> Opened:
        self._media = self._held.enter_context(open_media(source, limits))
        size_bytes = source.path.stat().st_size
        return Opened(media=self._media.info, etag=identity(source), size_bytes=size_bytes)

    def read(self, begins: View | None, reader: Reader) -> Read[FrameChunk]:
        started_s = time.monotonic()
        if self._media is None:
            raise Transient("the video was not opened")
        if begins is not None:
            self._chunks = self._media.read(begins.plan, begins.window, reader=reader)
        chunk = next(self._chunks, None)
        if chunk is None:
            raise Transient("there are no more frames in this window")
        num_frames, num_bytes = len(chunk.is_damaged), chunk.frames.nbytes
        span = self._process.span("read", started_s, num_frames=num_frames, num_bytes=num_bytes)
        return Read(chunk, chunk.is_damaged, span)

    def close(self) -> None:
        self._chunks = iter(())
        self._held.close()


class ReadingStage:
    """Videos are open under names that their streams choose; one that was restarted knows none.

    Names are registered in the order of the calls, before any of them waits: a video that is closed
    while it is being opened is closed.
    num_threads: videos that are read at once. observe: is told of every chunk, and of how many are
    asked for and not read.
    """

    def __init__(
        self,
        limits: DecodeLimits,
        *,
        reader: Reader = "pyav",
        num_threads: int = 1,
        process: Process | None = None,
        observe: Callable[[Span, int], None] = lambda span, num_waiting: None,
    ) -> None:
        self._limits = limits
        self._reader: Reader = reader
        self._process = process or Process.here("reader")
        self._observe = observe
        self._videos: dict[StreamId, OpenVideo] = {}
        self._num_waiting = 0  # chunks asked for and not read
        self._thread = ThreadPoolExecutor(num_threads, thread_name_prefix="read")

    @property
    def videos(self) -> tuple[StreamId, ...]:
        """Of those that are open."""
        return tuple(self._videos)

    async def open(self, video: StreamId, source: Source) -> Opened:
        """Start a child on the video and read its header. Raises BadInput."""
        limits = self._limits
        if self._videos:
            limits = replace(limits, niceness=precedence.LATER_VIDEOS)
        opening = self._videos[video] = OpenVideo(self._process)
        return await self._on_thread(opening, lambda: opening.open(source, limits))

    async def read(self, video: StreamId, begins: View | None = None) -> Read[FrameChunk]:
        """The next chunk, or a new view's first one. Raises BadInput."""
        if video not in self._videos:
            raise Transient("the reader was restarted and lost the video")
        open_video = self._videos[video]
        self._num_waiting += 1
        try:
            read = await self._on_thread(open_video, lambda: open_video.read(begins, self._reader))
        finally:
            self._num_waiting -= 1
        self._observe(read.span, self._num_waiting)
        return read

    async def close(self, video: StreamId) -> None:
        """Kill the video's children, after the chunk they are at; unknown names are fine."""
        if video in self._videos:
            closing = self._videos.pop(video)
            async with closing.lock:
                await asyncio.get_running_loop().run_in_executor(None, closing.close)

    async def release(self, owner: str) -> None:
        """Close every video that this owner left open."""
        await asyncio.gather(*(self.close(each) for each in self.videos if each.owner == owner))

    async def ready(self) -> bool:
        """It always is."""
        return True

    def stop(self) -> None:
        """End the threads; what they are in the middle of is finished first."""
        self._thread.shutdown(cancel_futures=True)

    async def _on_thread(self, video: OpenVideo, work: Callable[[], Result]) -> Result:
        async with video.lock:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
