"""A process that owns decoding children: opens videos, hands out their frames chunk by chunk.

A chunk is read when it is asked for; until then the child decodes ahead into a ring of fixed size.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

import ray

from actors import precedence
from actors.metrics import Metrics, place_of_actor
from actors.parcel import FrameParcel
from pipeline.config import DecodeLimits
from pipeline.errors import Transient
from pipeline.stint import Place, Stint
from pipeline.tasks.requests import View
from pipeline.types import FrameChunk, MediaInfo
from pipeline.video.reader import Media, Reader, open_media
from pipeline.video.source import Source, identity

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open video: what its header says, and which bytes it is."""

    media: MediaInfo
    etag: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ReadNote:
    """What the stream needs to know of a chunk of frames; small, so it may travel by value."""

    is_damaged: tuple[bool, ...]
    stint: Stint


class OpenVideo:
    """One video in this process; whoever works on it holds its lock."""

    def __init__(self, place: Place) -> None:
        self.lock = asyncio.Lock()
        self._place = place
        self._held = ExitStack()
        self._media: Media | None = None
        self._chunks: Iterator[FrameChunk] = iter(())

    def open(self, source: Source, limits: DecodeLimits) -> Opened:
        self._media = self._held.enter_context(open_media(source, limits))
        size_bytes = source.path.stat().st_size
        return Opened(media=self._media.info, etag=identity(source), size_bytes=size_bytes)

    def read(self, begins: View | None, reader: Reader) -> tuple[FrameParcel, ReadNote]:
        started_s = time.monotonic()
        if self._media is None:
            raise Transient("the video was not opened")
        if begins is not None:
            self._chunks = self._media.read(begins.plan, begins.window, reader=reader)
        chunk = next(self._chunks, None)
        if chunk is None:
            raise Transient("there are no more frames in this window")
        num_frames, num_bytes = len(chunk.is_damaged), chunk.frames.nbytes
        stint = self._place.stint("read", started_s, num_frames=num_frames, num_bytes=num_bytes)
        return FrameParcel.pack(chunk), ReadNote(chunk.is_damaged, stint)

    def close(self) -> None:
        self._chunks = iter(())
        self._held.close()


@ray.remote(max_restarts=-1, max_task_retries=0)
class FrameReaderActor:
    """Videos are open under names that their streams choose; a restarted reader knows none.

    Names are registered in the order of the calls, before any of them waits: a video that is closed
    while it is being opened is closed.
    """

    def __init__(self, limits: DecodeLimits, reader: Reader, num_threads: int) -> None:
        self._limits = limits
        self._reader: Reader = reader
        self._videos: dict[str, OpenVideo] = {}
        self._num_waiting = 0  # chunks asked for and not read
        self._place, self._metrics = place_of_actor(), Metrics()
        self._reading = ThreadPoolExecutor(num_threads, thread_name_prefix="read")

    async def open(self, key: str, source: Source) -> Opened:
        """Start a child on the video and read its header. Raises BadInput."""
        limits = self._limits
        if self._videos:
            limits = replace(limits, niceness=precedence.LATER_VIDEOS)
        video = self._videos[key] = OpenVideo(self._place)
        return await self._on_thread(video, lambda: video.open(source, limits))

    @ray.method(num_returns=2)
    async def read(self, key: str, begins: View | None = None) -> tuple[FrameParcel, ReadNote]:
        """The next chunk, or a new view's first one, and a note on it. Raises BadInput."""
        video = self._video(key)
        self._num_waiting += 1
        try:
            parcel, note = await self._on_thread(video, lambda: video.read(begins, self._reader))
        finally:
            self._num_waiting -= 1
        self._metrics.count(note.stint, num_waiting=self._num_waiting)
        return parcel, note

    async def close(self, key: str) -> None:
        """Kill the video's children, after the chunk they are at; unknown names are fine."""
        if key in self._videos:
            video = self._videos.pop(key)
            async with video.lock:
                await asyncio.get_running_loop().run_in_executor(None, video.close)

    async def release(self, owner: str) -> None:
        """Close every video that a stream host of this name left open."""
        left = [key for key in self._videos if key.startswith(f"{owner}/")]
        await asyncio.gather(*map(self.close, left))

    async def process_id(self) -> int:
        return os.getpid()

    def _video(self, key: str) -> OpenVideo:
        if key not in self._videos:
            raise Transient("the reader was restarted and lost the video")
        return self._videos[key]

    async def _on_thread(self, video: OpenVideo, work: Callable[[], Result]) -> Result:
        async with video.lock:
            return await asyncio.get_running_loop().run_in_executor(self._reading, work)
