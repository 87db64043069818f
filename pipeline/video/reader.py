"""The door to videos: open one, learn what is in it, take the frames its plan wants."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, ConfigError, FailureCode
from pipeline.types import FrameChunk, MediaInfo, SamplingPlan, Size, Window
from pipeline.video.claims import media_info
from pipeline.video.frames import fill_gaps, resize, upright
from pipeline.video.sandbox import Child
from pipeline.video.seeks import Seek, cut_runs
from pipeline.video.source import OpenFile, Source, open_file
from pipeline.video.wire import FROM_START, Header, ReadOrder, Run

Reader = Literal["pyav", "decord"]


def is_installed(reader: Reader) -> bool:
    """Whether this machine has the library; decord has wheels for x86-64 Linux and Windows only."""
    return reader == "pyav" or find_spec("decord") is not None


def require_installed(reader: Reader) -> None:
    """ConfigError if this machine does not have the reader's library."""
    if not is_installed(reader):
        raise ConfigError(f"the reader {reader} is not installed: it has no wheel for this machine")


MAX_SLOTS = 32
MAY_PASS = {FailureCode.DECODER_CRASH, FailureCode.DECODE_MEMORY}  # tried a second time
ROW_ALIGNMENT = 64  # pixels; FFmpeg rounds rows up to at most this
PLACES_PER_RUN = 8


Stamps = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    reader: Reader = "pyav"
    seek: Seek = "never"
    num_children: int | None = 1  # None: as fits the runs


_STRAIGHT = _How()


class Media:
    """An open video: `info`, and `read` for each window. Made by open_media."""

    def __init__(self, file: OpenFile, limits: DecodeLimits, stack: ExitStack) -> None:
        self._file = file
        self._limits = limits
        self._stack = stack
        self._children: list[Child] = []
        header, pts, is_key = self._probe()
        self._header = header
        self.info = media_info(header, pts, is_key, container=file.demuxer)

    def _probe(self) -> tuple[Header, NDArray[np.int64], NDArray[np.bool_]]:
        try:
            return self._idle_children(1)[0].probe()
        except BadInput as error:
            if error.code not in MAY_PASS:
                raise
        self._children.pop().close()
        return self._idle_children(1)[0].probe()

    def read(
        self,
        plan: SamplingPlan,
        window: Window,
        *,
        reader: Reader = "pyav",
        seek: Seek = "auto",
        children: int | None = None,
    ) -> Iterator[FrameChunk]:
        """Decode the window's frames, chunk by chunk, each (T, H, W, 3) uint8 at the planned size.

        children: processes that share the frames. If not given, one; where frames are jumped to, as
        many as the limits have threads, one each: threads of one decoder are idle after every jump.
        Every frame of the plan comes, damaged ones as marked placeholders. Equal frames whatever
        reader, seek and children are. Raises BadInput; closing the iterator kills the decoders.
        """
        stamps = tuple(dict.fromkeys(window.frame_pts))
        if not np.isin(stamps, self.info.pts).all():
            raise ValueError(f"window {window.index} wants frames that this video does not have")
        how = _How(reader=reader, seek=seek, num_children=children)
        geometry = window.grid.geometry
        with closing(self._wanted(stamps, how, size=window.grid.size)) as wanted:
            frames = fill_gaps(wanted)
            shown = _repeated(window.frame_pts, frames)
            for span in window.chunks:
                pictures, damage = zip(
                    *islice(shown, geometry.temporal * span.num_steps), strict=True
                )
                yield FrameChunk(
                    plan_hash=plan.hash,
                    window_index=window.index,
                    index=span.index,
                    geometry=geometry,
                    # By numpy, on one thread: torch's would wait for cores that decode.
                    frames=from_numpy(np.stack([picture.numpy() for picture in pictures])),
                    is_damaged=damage,
                )
            next(frames, None)  # to its end: the children say that they are done
        self._file.require_unchanged()

    def _wanted(
        self, stamps: Stamps, how: _How, *, size: Size
    ) -> Generator[Tensor | None, None, None]:
        """Each wanted frame, upright and resized: (H, W, 3) uint8, or None where it is missing.

        A decoder that crashes or is killed is replaced once. When a frame is missing after a jump,
        the rest is first tried without jumping: some streams mark as keyframes what does not stand
        alone.
        """
        frames = self._decoded(stamps, how)
        with ExitStack() as opened:
            opened.callback(lambda: frames.close())
            may_replace, may_doubt = True, how.reader == "pyav" and how != _STRAIGHT
            for number in range(len(stamps)):
                try:
                    frame = next(frames)
                except BadInput as error:
                    if error.code not in MAY_PASS or not may_replace:
                        raise
                    may_replace = False
                    frames = self._decoded(stamps[number:], how)
                    frame = next(frames)
                if frame is None and may_doubt:
                    may_doubt = False
                    straight = self._decoded(stamps[number:], _STRAIGHT)
                    frame = next(straight)
                    frames, other = (frames, straight) if frame is None else (straight, frames)
                    other.close()
                yield None if frame is None else self._shown(frame, size, how.reader)
            next(frames, None)

    def _decoded(self, stamps: Stamps, how: _How) -> Generator[Tensor | None, None, None]:
        """The wanted frames as children decode them, in order; valid until the next is taken."""
        runs, threads = self._runs(stamps, how), self._limits.threads
        num_children = min(how.num_children or threads, len(runs))
        if how.num_children is None and len(runs) > 1:
            threads = 1
        order = self._order(how.reader, threads=threads)
        workers = self._idle_children(num_children, how.reader)
        self._children = []  # a child that was not read to the end must not be asked again
        try:
            shares = []
            for number, worker in enumerate(workers):
                share = runs[number :: len(workers)]
                worker.order(order, share)
                shares.append(worker.frames(order, sum(len(run.wanted) for run in share)))
            for number, run in enumerate(runs):
                yield from islice(shares[number % len(workers)], len(run.wanted))
            for rest in shares:
                next(rest, None)  # the child says it is done
            if how.reader == "pyav":
                self._children, workers = workers, []
        finally:
            for worker in workers:  # stopped halfway, by an error or by whoever took the frames
                worker.close()

    def _shown(self, frame: Tensor, size: Size, reader: Reader) -> Tensor:
        if reader == "pyav":
            info = self.info
            frame = upright(frame, rotation_deg=info.rotation_deg, is_mirrored=info.is_mirrored)
        return resize(frame[None], size)[0]

    def _runs(self, stamps: Stamps, how: _How) -> list[Run]:
        if how.reader == "decord":  # it knows frames by their place in the index
            places = np.searchsorted(self.info.pts, stamps).tolist()
            step = PLACES_PER_RUN if (how.num_children or 1) > 1 else len(places)
            return [
                Run(FROM_START, tuple(places[first : first + step]))
                for first in range(0, len(places), step)
            ]
        if self._header.is_counted or how == _STRAIGHT:
            return [Run(FROM_START, stamps)]
        return cut_runs(
            stamps,
            pts=self.info.pts,
            is_key=self.info.is_key,
            seek=how.seek,
            num_children=how.num_children or 1,
        )

    def _order(self, reader: Reader, *, threads: int) -> ReadOrder:
        width, height = self._header.coded_width, self._header.coded_height
        if reader == "decord":
            require_installed(reader)
            if self.info.is_mirrored or self.info.container == "mpegts":
                raise BadInput(FailureCode.NOT_DECODABLE, "decord shows other frames of it")
            if self.info.rotation_deg % 180:  # it turns by itself
                width, height = height, width
        stride = -(-width // ROW_ALIGNMENT) * ROW_ALIGNMENT * 3
        slot_bytes = stride * height
        return ReadOrder(
            reader=reader,
            width=width,
            height=height,
            num_slots=min(max(self._limits.ahead_bytes // slot_bytes, 2), MAX_SLOTS),
            slot_bytes=slot_bytes,
            is_counted=self._header.is_counted,
            num_indexed=len(self.info.pts),
            threads=threads,
        )

    def _idle_children(self, count: int, reader: Reader = "pyav") -> list[Child]:
        if reader == "decord":  # it starts threads always; those that wait for PyAV may not
            while self._children:
                self._children.pop().close()
        while len(self._children) < count:
            may_thread = reader == "decord" or self._limits.threads > 1
            child = Child(self._file, self._limits, may_thread=may_thread)
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
    children: int | None = None,
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
