"""Which coded frame is on the screen at a given time: by stamp, so for any frame rate.

Times are exact fractions of a second from the start of the file, as a player counts: the picture
may begin later. Before it does nothing is shown, so nothing is planned there. Exact, because the
last bit of a float must not decide between two frames. Lookups bisect the packet index; nothing
here walks over all of its frames.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadInput, FailureCode
from pipeline.types import MediaInfo

# A stamp is its frame's time rounded to a tick: one that is late by half a tick is on time.
# Where ticks are whole frames (1/25 s) the stamps are exact and half a tick would be a lie.
MAX_ROUNDING_S = Fraction(1, 2000)


def seconds(value: float) -> Fraction:
    """Return the short fraction that a float stands for: 0.1 is 1/10, 30.03 is 3003/100."""
    return Fraction(value).limit_denominator(1_000_000)


@dataclass(frozen=True, slots=True)
class Samples:
    """Frames in order: their stamps, and times at which each is the picture a player shows."""

    pts: tuple[int, ...]
    times_s: tuple[float, ...]

    def padded(self, temporal: int) -> "Samples":
        """Repeat the last frame until so many make whole temporal patches."""
        missing = -len(self.pts) % temporal
        return Samples(
            self.pts + self.pts[-1:] * missing, self.times_s + self.times_s[-1:] * missing
        )


@dataclass(frozen=True, slots=True)
class Timeline:
    """The part [start, end) of a video, in seconds from the start of its file."""

    media: MediaInfo
    start: Fraction
    end: Fraction

    @classmethod
    def of(cls, media: MediaInfo, *, start_s: float | None, end_s: float | None) -> "Timeline":
        """Cut [start_s, end_s) to the video; raises BadInput if it has no frame there."""
        if media.pts.size == 0:
            raise BadInput(FailureCode.TRUNCATED, "the video has no frames")
        first = Fraction(media.offset * media.time_base_num, media.time_base_den)
        last = first + max(seconds(media.duration_s), Fraction(0))
        start = max(seconds(start_s or 0.0), first)
        end = last if end_s is None else min(seconds(end_s), last)
        if start >= end and (start_s is not None or end_s is not None):
            asked = f"[{start_s or 0.0} s, {'end' if end_s is None else f'{end_s} s'})"
            detail = (
                f"{asked} holds nothing of a video from {float(first):.3f} to {float(last):.3f} s"
            )
            raise BadInput(FailureCode.EMPTY_RANGE, detail)
        return cls(media, start, end)

    @property
    def duration(self) -> Fraction:
        return self.end - self.start

    @property
    def shown(self) -> range:
        """Positions in the packet index of the frames a player shows from start to end."""
        first = int(self._positions([self._tick(self.start + self._rounding)])[0])
        stop = self._count_before(self.end - self._rounding)
        return range(first, max(first + 1, stop))

    @property
    def stamped(self) -> range:
        """Positions of the frames stamped from start to end, both included; may be empty."""
        first = self._count_before(self.start - self._rounding)
        return range(first, int(self._positions([self._tick(self.end + self._rounding)])[0]) + 1)

    def by_time(self, count: int) -> Samples:
        """Take the frame shown at each of `count` even steps, or every frame if there are fewer."""
        shown = self.shown
        if count >= len(shown):
            return self.by_position(shown)
        step = self.duration / count
        # One common denominator and then whole numbers: a day at 2 fps is 172,800 times.
        unit = math.lcm(self.start.denominator, step.denominator)
        first, stride = int(self.start * unit), int(step * unit)
        times = [first + index * stride for index in range(count)]
        origin, per_unit = self._zero, self._ticks_per_s / unit
        late = self._rounding * self._ticks_per_s
        scale = math.lcm(per_unit.denominator, late.denominator)
        slope, offset = int(per_unit * scale), int(late * scale)
        ticks = [origin + (time * slope + offset) // scale for time in times]
        pts = self.media.pts[self._positions(ticks)].tolist()
        return self._samples(pts, [time / unit for time in times])

    def by_position(self, positions: Sequence[int]) -> Samples:
        """Take the frames at these positions of the packet index, each at its own time."""
        pts = self.media.pts[np.asarray(positions, dtype=np.int64)].tolist()
        return self._samples(pts, [float(self.start)] * len(pts))

    def _samples(self, pts: list[int], earliest_s: list[float]) -> Samples:
        """Pair stamps with times, none before its frame's own stamp."""
        origin, num, den = self._zero, self.media.time_base_num, self.media.time_base_den
        stamps_s = [(stamp - origin) * num / den for stamp in pts]
        return Samples(tuple(pts), tuple(map(max, earliest_s, stamps_s)))

    def _positions(self, ticks: list[int]) -> NDArray[np.int64]:
        """Return for each tick the last frame stamped at or before it."""
        pts = self.media.pts
        lowest, highest = int(pts[0]), int(pts[-1])
        inside = np.array([min(max(tick, lowest), highest) for tick in ticks], dtype=np.int64)
        return np.searchsorted(pts, inside, side="right") - 1

    def _count_before(self, time: Fraction) -> int:
        """Count the frames stamped before `time`."""
        tick = math.ceil(self._zero + time * self._ticks_per_s)
        if tick > int(self.media.pts[-1]):
            return int(self.media.pts.size)
        return int(np.searchsorted(self.media.pts, max(tick, int(self.media.pts[0])), side="left"))

    def _tick(self, time: Fraction) -> int:
        return math.floor(self._zero + time * self._ticks_per_s)

    @property
    def _zero(self) -> int:
        """The stamp of a frame that were shown when the file starts."""
        return int(self.media.pts[0]) - self.media.offset

    @property
    def _ticks_per_s(self) -> Fraction:
        return Fraction(self.media.time_base_den, self.media.time_base_num)

    @property
    def _rounding(self) -> Fraction:
        return min(1 / self._ticks_per_s / 2, MAX_ROUNDING_S)
