"""The door to videos: open one, learn what is in it, take the frames its plan wants."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Literal

import numpy as np
from torch import Tensor, stack

from pipeline.config import MIB, DecodeLimits
from pipeline.errors import BadInput, FailureCode
from pipeline.types import TEMPORAL, FrameChunk, MediaInfo, SamplingPlan, Size, Window
from pipeline.video.claims import media_info
from pipeline.video.frames import fill_gaps, resize, upright
from pipeline.video.sandbox import Child
from pipeline.video.schedule import Seek, schedule
from pipeline.video.source import OpenFile, Source, open_file
from pipeline.video.wire import FROM_START, ReadOrder, Run

Reader = Literal["pyav", "decord"]

RING_BYTES = 96 * MIB
MAX_SLOTS = 32
ROW_ALIGNMENT = 64  # pixels; FFmpeg rounds rows up to at most this
PLACES_PER_RUN = 8


class Media:
    """An open video: `info`, and `read` for each window. Made by open_media."""

    def __init__(self, file: OpenFile, limits: DecodeLimits, stack: ExitStack) -> None:
        self._file = file
        self._limits = limits
        self._stack = stack
        self._children: list[Child] = []
        header, pts, is_key = self._idle_children(1)[0].probe()
        self._header = header
        self.info = media_info(header, pts, is_key, container=file.demuxer)

    def read(
        self,
        plan: SamplingPlan,
        window: Window,
        *,
        reader: Reader = "pyav",
        seek: Seek = "auto",
        children: int = 1,
    ) -> Iterator[FrameChunk]:
        """Decode the window's frames, chunk by chunk, each (T, H, W, 3) uint8 at the planned size.

        Every frame of the plan comes, damaged ones as marked placeholders. Equal frames whatever
        reader, seek and children are. Raises BadInput; closing the iterator kills the decoders.
        """
        stamps = list(dict.fromkeys(window.frame_pts))
        frames = fill_gaps(self._wanted(stamps, window.grid.size, reader, seek, children))
        shown = _repeated(window.frame_pts, frames)
        for span in window.chunks:
            pictures, damage = zip(*islice(shown, TEMPORAL * span.num_steps), strict=True)
            yield FrameChunk(
                plan_hash=plan.hash,
                window_index=window.index,
                index=span.index,
                frames=stack(pictures),
                is_damaged=damage,
            )
        next(frames, None)  # to its end: the children say that they are done
        self._file.require_unchanged()

    def _wanted(
        self, stamps: list[int], size: Size, reader: Reader, seek: Seek, children: int
    ) -> Iterator[Tensor | None]:
        """Each wanted frame, upright and resized: (H, W, 3) uint8, or None where it is missing."""
        if reader == "decord":
            runs = self._places(stamps, children)
        else:
            runs = self._runs(stamps, seek, children)
        order = self._order(reader)
        workers = self._idle_children(min(children, len(runs)))
        self._children = []  # a child that was not read to the end must not be asked again
        for number, worker in enumerate(workers):
            worker.order(order, runs[number :: len(workers)])
        shares = [
            worker.frames(order, sum(len(run.wanted) for run in runs[number :: len(workers)]))
            for number, worker in enumerate(workers)
        ]
        try:
            for number, run in enumerate(runs):
                for frame in islice(shares[number % len(workers)], len(run.wanted)):
                    yield None if frame is None else self._shown(frame, size, reader)
            for share in shares:
                next(share, None)
            self._children = workers
        finally:
            if not self._children:  # stopped halfway, by an error or by whoever took the frames
                for worker in workers:
                    worker.close()

    def _shown(self, frame: Tensor, size: Size, reader: Reader) -> Tensor:
        if reader == "pyav":
            info = self.info
            frame = upright(frame, rotation_deg=info.rotation_deg, is_mirrored=info.is_mirrored)
        return resize(frame[None], size)[0]

    def _places(self, stamps: list[int], children: int) -> list[Run]:
        """What decord understands: places in the index; shared out in small runs."""
        places = np.searchsorted(self.info.pts, stamps).tolist()
        step = PLACES_PER_RUN if children > 1 else len(places)
        return [
            Run(FROM_START, tuple(places[first : first + step]))
            for first in range(0, len(places), step)
        ]

    def _runs(self, stamps: list[int], seek: Seek, children: int) -> list[Run]:
        if self._header.is_counted:  # frames are told apart by their number: only straight through
            return [Run(FROM_START, tuple(stamps))]
        return schedule(
            stamps, pts=self.info.pts, is_key=self.info.is_key, seek=seek, num_children=children
        )

    def _order(self, reader: Reader) -> ReadOrder:
        width, height = self._header.coded_width, self._header.coded_height
        if reader == "decord":
            if self.info.is_mirrored:
                raise BadInput(FailureCode.NOT_DECODABLE, "decord does not mirror pictures")
            if self.info.rotation_deg % 180:  # it turns by itself
                width, height = height, width
        stride = -(-width // ROW_ALIGNMENT) * ROW_ALIGNMENT * 3
        slot_bytes = stride * height
        return ReadOrder(
            reader=reader,
            width=width,
            height=height,
            num_slots=min(max(RING_BYTES // slot_bytes, 2), MAX_SLOTS),
            slot_bytes=slot_bytes,
            is_counted=self._header.is_counted,
            num_indexed=len(self.info.pts),
            threads=self._limits.threads,
        )

    def _idle_children(self, count: int) -> list[Child]:
        while len(self._children) < count:
            child = Child(self._file, self._limits)
            self._stack.callback(child.close)
            self._children.append(child)
        return self._children[:count]


@contextmanager
def open_media(source: Source, limits: DecodeLimits | None = None) -> Iterator[Media]:
    """Open a video in a child process and probe it; nothing of it is left when the block ends.

    Raises BadInput with the code of what is wrong with the file.
    """
    limits = limits or DecodeLimits()
    with open_file(source, max_bytes=limits.max_bytes) as file, ExitStack() as stack:
        yield Media(file, limits, stack)


def probe(source: Source, limits: DecodeLimits | None = None) -> MediaInfo:
    """What the header and the packet index say. Raises BadInput."""
    with open_media(source, limits) as media:
        return media.info


def read(
    source: Source,
    plan: SamplingPlan,
    window: Window,
    limits: DecodeLimits | None = None,
    *,
    reader: Reader = "pyav",
    seek: Seek = "auto",
    children: int = 1,
) -> Iterator[FrameChunk]:
    """Media.read for one window of a video that is not open yet."""
    with open_media(source, limits) as media:
        yield from media.read(plan, window, reader=reader, seek=seek, children=children)


def _repeated(
    stamps: tuple[int, ...], frames: Iterator[tuple[Tensor, bool]]
) -> Iterator[tuple[Tensor, bool]]:
    """One picture per stamp, from one picture per distinct stamp."""
    current: tuple[Tensor, bool] | None = None
    previous: int | None = None
    for stamp in stamps:
        if current is None or stamp != previous:
            current = next(frames)
            previous = stamp
        yield current
