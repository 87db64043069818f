"""A few small frames of each video for the page: read again from the source, in the sandbox."""

import io
import math
import os
import tempfile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.report.view import Still
from pipeline.config import DecodeLimits
from pipeline.store.archive import Archive
from pipeline.store.items import Item
from pipeline.store.objects import source_changed
from pipeline.store.open import S3_SCHEME
from pipeline.store.s3_config import S3Config
from pipeline.tasks.records import Record
from pipeline.types import ChunkSpan, Geometry, MediaInfo, SamplingPlan, Size, Window
from pipeline.video.reader import open_media
from pipeline.video.source import Source

FRAMES = 6  # of one video
PIXELS = 224 * 140  # of one frame
GEOMETRY = Geometry(patch=1, merge=1, temporal=1)  # for people: nothing is cut or doubled
JPEG_QUALITY = 72


class Strips:
    """Reads strips for records whose videos can still be reached."""

    def __init__(self, *, s3: S3Config | None = None, limits: DecodeLimits | None = None) -> None:
        self._limits = limits or DecodeLimits()
        self._archive = Archive(
            s3=s3, folder=tempfile.gettempdir(), max_bytes=self._limits.max_bytes
        )

    def read(self, record: Record) -> list[Still]:
        """The record's frames in order of time. BadInput where the video is gone or has changed."""
        times_s = still_times(record)
        etag = record.etag if record.uri.startswith(S3_SCHEME) else None
        with self._archive.open(Item(uri=record.uri, etag=etag)) as copy:
            if record.size_bytes not in (None, os.path.getsize(copy.path)):
                raise source_changed()
            source = Source.of(copy.path)
            with open_media(source, self._limits) as media:
                plan = moments_plan(media.info, times_s, _small(media.info))
                chunks = media.read(plan, plan.windows[0])
                frames = [frame for chunk in chunks for frame in chunk.frames.numpy()]
        return [
            Still(time_s=time_s, jpeg=jpeg_of(frame))
            for time_s, frame in zip(times_s, frames, strict=True)
        ]


def still_times(record: Record) -> list[float]:
    """Which moments to show: those with boxes first, then others evenly spread, FRAMES at most."""
    windows = record.plan.windows if record.plan else ()
    shown = sorted({time_s for window in windows for time_s in window.times_s})
    boxed = sorted({box.time_s for box in record.boxes})[:FRAMES]
    room = FRAMES - len(boxed)
    even = [shown[round(place)] for place in np.linspace(0, len(shown) - 1, room)] if shown else []
    return sorted({*boxed, *even}) or [0.0]


def moments_plan(media: MediaInfo, times_s: list[float], size: Size) -> SamplingPlan:
    """The plan of exactly these moments, which do not decrease, in pictures of this size."""
    ticks = media.pts - media.pts[0] + media.offset
    stamps_s = ticks * (media.time_base_num / media.time_base_den)
    places = np.searchsorted(stamps_s, np.array(times_s) + 1e-6, side="right") - 1
    pts = media.pts[np.maximum(places, 0)].tolist()
    window = Window(
        index=0,
        start_s=0.0,
        end_s=media.offset_s + media.duration_s,
        frame_pts=tuple(pts),
        times_s=tuple(times_s),
        grid=GEOMETRY.grid(len(pts), size),
        chunks=(ChunkSpan(0, 0, len(pts)),),
    )
    return SamplingPlan(
        source_id="report",
        preset="report",
        fps=0.0,
        source_width=media.width,
        source_height=media.height,
        duration_s=media.duration_s,
        is_still=media.is_still,
        time_base_num=media.time_base_num,
        time_base_den=media.time_base_den,
        windows=(window,),
    )


def _small(media: MediaInfo) -> Size:
    """The picture's own shape, in PIXELS at most."""
    scale = min(1.0, math.sqrt(PIXELS / (media.width * media.height)))
    return Size(max(1, int(media.height * scale)), max(1, int(media.width * scale)))


def jpeg_of(frame: NDArray[np.uint8], *, width: int | None = None) -> bytes:
    """frame: (H, W, 3) uint8. width: at most so wide."""
    buffer = io.BytesIO()
    picture = Image.fromarray(frame)
    if width is not None:
        picture.thumbnail((width, picture.height))
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()
