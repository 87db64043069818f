"""The door to videos: open one, learn what is in it, take the frames its plan wants."""

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
from torch import Tensor, from_numpy

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, FailureCode
from pipeline.types import FrameChunk, MediaInfo, SamplingPlan, Size, Window
from pipeline.video.claims import media_info
from pipeline.video.decord_proof import require_provable
from pipeline.video.frames import fill_gaps, resize, upright
from pipeline.video.libraries import Reader, require_installed
from pipeline.video.presentation import Measured, Order, Packets, order_of
from pipeline.video.runs import Runs
from pipeline.video.sandbox import Child, Waited
from pipeline.video.seeks import START, Seek, Stretch, cut_stretches
from pipeline.video.source import OpenFile, Source, open_file
from pipeline.video.wire import FROM_START, Header, ReadOrder, Run

MAX_SLOTS = 32
MAY_PASS = {FailureCode.DECODER_CRASH, FailureCode.DECODE_MEMORY}  # tried a second time
ROW_ALIGNMENT = 64  # pixels; FFmpeg rounds rows up to at most this
PLACES_PER_RUN = 8


Places = tuple[int, ...]  # of frames, in order of presentation


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
        self._waited = Waited()
        self._measured: Measured | None = None
        try:
            self._header, self._packets = self._probe()
            self._order_of_frames = self._require_order()
            self._runs = Runs(self._order_of_frames, self._packets)
            self.info = media_info(self._header, self._order_of_frames, container=file.demuxer)
        except BadInput as error:
            error.sandbox = self.sandbox
            raise

    @property
    def size_bytes(self) -> int:
        """Of the file that was opened, whatever is there by now."""
        return self._file.size_bytes

    @property
    def sandbox(self) -> tuple[str, ...]:
        """The measures of confinement.py that hold its decoders, as the last of them said."""
        return self._children[-1].measures if self._children else ()

    def _probe(self) -> tuple[Header, Packets]:
        try:
            return self._idle_children(1)[0].probe()
        except BadInput as error:
            if error.code not in MAY_PASS:
                raise
        self._children.pop().close()
        return self._idle_children(1)[0].probe()

    def _require_order(self) -> Order:
        """The order of the frames: from the stamps, or coded headers, or else by decoding once."""

        def by(measured: Measured | None) -> Order | None:
            return order_of(
                self._packets, self._header, demuxer=self._file.demuxer, measured=measured
            )

        order = by(None)
        if order is None:
            coded = self._idle_children(1)[0].coded_order(self._header.num_packets)
            order = by(coded) or by(self._measure())
        if order is None:
            raise RuntimeError("a measured order is an order")
        return order

    def _measure(self) -> Measured:
        if self._measured is None:
            self._measured = self._idle_children(1)[0].measure(self._header.num_packets)
        return self._measured

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
        places = tuple(np.searchsorted(self.info.pts, stamps).tolist())
        how = _How(reader=reader, seek=seek, num_children=children)
        geometry = window.grid.geometry
        with closing(self._wanted(places, how, size=window.grid.size)) as wanted:
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
        self, places: Places, how: _How, *, size: Size
    ) -> Generator[Tensor | None, None, None]:
        """Each wanted frame, upright and resized: (H, W, 3) uint8, or None where it is missing.

        A decoder that crashes or is killed is replaced once.
        """
        frames = self._decoded(places, how)
        with ExitStack() as opened:
            opened.callback(lambda: frames.close())
            may_replace = True
            for number in range(len(places)):
                try:
                    frame = next(frames)
                except BadInput as error:
                    if error.code not in MAY_PASS or not may_replace:
                        raise
                    may_replace = False
                    frames = self._decoded(places[number:], how)
                    frame = next(frames)
                yield None if frame is None else self._shown(frame, size, how.reader)
            next(frames, None)

    def _decoded(self, places: Places, how: _How) -> Generator[Tensor | None, None, None]:
        """The wanted frames as children decode them, in order; valid until the next is taken."""
        stretches, threads = self._stretches(places, how), self._limits.threads
        num_children = min(how.num_children or threads, len(stretches))
        if how.num_children is None and len(stretches) > 1:
            threads = 1
        order = self._order(how.reader, threads=threads)
        workers = self._idle_children(num_children, how.reader)
        self._children = []  # a child that was not read to the end must not be asked again
        try:
            shares = []
            for number, worker in enumerate(workers):
                share = stretches[number :: len(workers)]
                worker.order(order, [self._run(stretch, how.reader) for stretch in share])
                shares.append(worker.frames(order, sum(len(one.wanted) for one in share)))
            for number, stretch in enumerate(stretches):
                yield from self._sure(stretch, shares[number % len(workers)], order)
            for rest in shares:
                next(rest, None)  # the child says it is done
            if how.reader == "pyav":
                self._children, workers = workers + self._children, []
        finally:
            for worker in workers:  # stopped halfway, by an error or by whoever took the frames
                worker.close()

    def _sure(
        self, stretch: Stretch, frames: Iterator[Tensor | None], order: ReadOrder
    ) -> Iterator[Tensor | None]:
        """The stretch's frames. Where one is missing, the rest is decoded from a keyframe further
        back as well: some streams mark as keyframes what does not stand alone.
        """
        for number in range(len(stretch.wanted)):
            frame = next(frames)
            if frame is None and stretch.key != START and order.reader == "pyav":
                rest = Stretch(stretch.key, stretch.wanted[number:])
                with closing(self._from_further_back(rest, order)) as others:
                    yield next(others)
                    for other, _ in zip(others, frames, strict=False):
                        yield other
                return
            yield frame

    def _from_further_back(
        self, stretch: Stretch, order: ReadOrder
    ) -> Generator[Tensor | None, None, None]:
        """The stretch's frames, decoded from a keyframe before its own that is whole itself."""
        keys = np.flatnonzero(self._runs.may_start)
        before = int(np.searchsorted(keys, stretch.key))
        step = 1
        worker = self._idle_children(1)[0]
        self._children = []
        try:
            while True:
                key = int(keys[before - step]) if step < before else START
                probe = () if key == START else (key,)
                wanted = Stretch(key, (*probe, *stretch.wanted))
                worker.order(order, [self._runs.of(wanted)])
                frames = worker.frames(order, len(wanted.wanted))
                if key == START or next(frames) is not None:
                    yield from frames
                    break
                deque(frames, maxlen=0)
                step *= 2
            self._children = [worker, *self._children]
        finally:
            if worker not in self._children:
                worker.close()

    def _shown(self, frame: Tensor, size: Size, reader: Reader) -> Tensor:
        if reader == "pyav":
            info = self.info
            frame = upright(frame, rotation_deg=info.rotation_deg, is_mirrored=info.is_mirrored)
        return resize(frame[None], size)[0]

    def _stretches(self, places: Places, how: _How) -> list[Stretch]:
        if how.reader == "decord":
            step = PLACES_PER_RUN if (how.num_children or 1) > 1 else len(places)
            return [
                Stretch(START, places[first : first + step])
                for first in range(0, len(places), step)
            ]
        if how == _STRAIGHT:
            return [Stretch(START, places)]
        return cut_stretches(
            places, is_key=self._runs.may_start, seek=how.seek, num_children=how.num_children or 1
        )

    def _run(self, stretch: Stretch, reader: Reader) -> Run:
        if reader == "decord":  # it knows frames by their place
            return Run(FROM_START, 0, stretch.wanted, stretch.wanted)
        return self._runs.of(stretch)

    def _order(self, reader: Reader, *, threads: int) -> ReadOrder:
        width, height = self._header.coded_width, self._header.coded_height
        if reader == "decord":
            require_installed(reader)
            require_provable(self.info, self._order_of_frames, self._header, self._measure)
            if self.info.rotation_deg % 180:  # it turns by itself
                width, height = height, width
        stride = -(-max(width, self._header.row_width) // ROW_ALIGNMENT) * ROW_ALIGNMENT * 3
        slot_bytes = stride * height
        return ReadOrder(
            reader=reader,
            width=width,
            height=height,
            num_slots=min(max(self._limits.ahead_bytes // slot_bytes, 2), MAX_SLOTS),
            slot_bytes=slot_bytes,
            num_indexed=len(self.info.pts),
            threads=threads,
            leaves_bits=self._header.leaves_bits,
            may_skip=not self._order_of_frames.is_measured,
        )

    def _idle_children(self, count: int, reader: Reader = "pyav") -> list[Child]:
        if reader == "decord":  # it starts threads always; those that wait for PyAV may not
            while self._children:
                self._children.pop().close()
        while len(self._children) < count:
            may_thread = reader == "decord" or self._limits.threads > 1
            child = Child(
                self._file,
                self._limits,
                waited=self._waited,
                may_thread=may_thread,
                reads_by_name=reader == "decord",
            )
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
