"""What a decoding child is told of a stretch: which packets to decode, what is known of them."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.video.presentation import Order, Packets
from pipeline.video.seeks import START, Stretch
from pipeline.video.wire import FROM_START, Mark, Run


class Runs:
    """Stretches of one video's frames as runs of its packets."""

    def __init__(self, order: Order, packets: Packets) -> None:
        self._order = order
        self._packets = packets

    def of(self, stretch: Stretch) -> Run:
        packets, stamps = self._order.packets, self._packets.stamps
        wanted = packets[list(stretch.wanted)]
        key = FROM_START if stretch.key == START else int(packets[stretch.key])
        last = int(wanted.max())
        return Run(
            key=key,
            key_stamp=0 if key == FROM_START else int(stamps[key]),
            wanted=tuple(wanted.tolist()),
            stamps=tuple(stamps[wanted].tolist()),
            keys=_within(self._keys, key, last),
            losses=_within(self._losses, key, last),
            silent=_within(self._silent, key, last + 1),
            unended=_within(self._unended, key, last),
        )

    @cached_property
    def may_start(self) -> NDArray[np.bool_]:
        """(T,) Keyframes that a seek can find by their stamp, as no other packet has it."""
        order = self._order
        if order.is_numbered or order.is_joined:
            return np.zeros(len(order.pts), np.bool_)
        stamps = np.sort(self._packets.stamps)
        own = self._packets.stamps[order.packets]
        count = np.searchsorted(stamps, own, side="right") - np.searchsorted(stamps, own)
        # What is shown later is decoded later: else decoding would begin behind it.
        follow = np.minimum.accumulate(order.packets[::-1])[::-1]
        may_start: NDArray[np.bool_] = order.is_key & (count == 1) & (follow == order.packets)
        return may_start

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        """The numbers of all keyframes' packets."""
        return np.flatnonzero(self._packets.marks & Mark.KEY)

    @cached_property
    def _losses(self) -> NDArray[np.int64]:
        """The numbers of the packets that are behind a loss; a keyframe needs nothing before it."""
        marks = self._packets.marks
        return np.flatnonzero((marks & Mark.BEHIND_LOSS != 0) & (marks & Mark.KEY == 0))

    @cached_property
    def _silent(self) -> NDArray[np.int64]:
        """The numbers of the packets that no picture comes out for. For what an edit list cuts away
        one does, which is dropped then.
        """
        shows = self._packets.marks & (Mark.DISCARD | Mark.HIDDEN) == Mark.DISCARD
        shows[self._order.packets] = True
        return np.flatnonzero(~shows)

    @cached_property
    def _unended(self) -> NDArray[np.int64]:
        """The numbers of the packets without their end."""
        return np.flatnonzero(self._packets.marks & Mark.UNENDED)


def _within(numbers: NDArray[np.int64], first: int, last: int) -> tuple[int, ...]:
    """Those of ascending numbers that lie from first to last."""
    return tuple(numbers[slice(*np.searchsorted(numbers, [first, last + 1]))].tolist())
