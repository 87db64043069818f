"""A process that owns decoding children: opens videos, hands out their frames by chunks."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import ray

from actors.parcel import FrameParcel
from pipeline.config import DecodeLimits
from pipeline.errors import Transient
from pipeline.types import MediaInfo, SamplingPlan, Window
from pipeline.video.reader import Media, Reader, open_media
from pipeline.video.source import Source, identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open video: what its header says, and which bytes it is."""

    media: MediaInfo
    etag: str
    size_bytes: int


@ray.remote(max_restarts=-1, max_task_retries=0)
class FrameReaderActor:
    """Videos are open under names that their streams choose; a restarted reader knows none."""

    def __init__(self, limits: DecodeLimits, reader: Reader) -> None:
        self._limits = limits
        self._reader: Reader = reader
        self._open: dict[str, tuple[AbstractContextManager[Media], Media]] = {}

    def open(self, key: str, source: Source) -> Opened:
        """Start a child on the video and read its header. Raises BadInput."""
        context = open_media(source, self._limits)
        media = context.__enter__()
        self._open[key] = (context, media)
        etag = identity(source)
        return Opened(media=media.info, etag=etag, size_bytes=source.path.stat().st_size)

    def read(self, key: str, plan: SamplingPlan, window: Window) -> Iterator[FrameParcel]:
        """The window's chunks in order. Raises BadInput."""
        if key not in self._open:
            raise Transient("the reader was restarted and lost the video")
        _, media = self._open[key]
        started = time.perf_counter()
        for chunk in media.read(plan, window, reader=self._reader):
            yield FrameParcel.pack(chunk, read_s=time.perf_counter() - started)
            started = time.perf_counter()

    def close(self, key: str) -> None:
        """Kill the video's children; unknown names are fine."""
        if key in self._open:
            context, _ = self._open.pop(key)
            context.__exit__(None, None, None)

    def release(self, owner: str) -> None:
        """Close every video that a stream host of this name left open."""
        for key in [key for key in self._open if key.startswith(f"{owner}/")]:
            self.close(key)

    def process_id(self) -> int:
        return os.getpid()
