"""Which pictures came out of the decoder for which packets, and which of them are whole.

Pictures are known by the number of their packet, so one that does not come out, or comes out of
order, moves no other. What follows a keyframe that failed, another picture that failed and that
others refer to, or a place where some of the stream is lost, is damaged up to the next keyframe
that did not fail: it is drawn upon something else. The verdict is the same wherever decoding began,
but for the first keyframe itself, which may need what stands before it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pipeline.video.wire import NO_STAMP

# Pictures that any decoder holds back, fields and packed frames included.
MAX_HELD = 36


class Picture(Protocol):
    @property
    def is_corrupt(self) -> bool: ...


P = TypeVar("P", bound=Picture)


@dataclass(slots=True)
class _Group:
    """A keyframe and what refers to it, or what stands behind a loss.

    is_whole: None until the keyframe's picture is out, or lost. broken: the first packet after it
    that failed and that others refer to; only those shown before the keyframe refer to the leading.
    """

    number: int
    stamp: int
    is_whole: bool | None = None
    broken: int | None = None
    broken_leading: int | None = None

    def is_leading(self, stamp: int) -> bool:
        """Whether what is decoded after the keyframe is shown before it."""
        return NO_STAMP < stamp < self.stamp

    def note_broken(self, number: int, stamp: int) -> None:
        if self.is_leading(stamp):
            self.broken_leading = _first(self.broken_leading, number)
        else:
            self.broken = _first(self.broken, number)

    def stands_at(self, number: int, *, is_leading: bool) -> bool:
        """Whether what this packet may refer to in the group is whole; known by then."""
        broken = self.broken
        if is_leading and self.broken_leading is not None:
            broken = _first(broken, self.broken_leading)
        return bool(self.is_whole) and (broken is None or number <= broken)


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A picture that others refer to. is_sure: it is broken if it does not come out."""

    stamp: int
    is_sure: bool


class Harvest(Generic[P]):
    """`feed` and `take` as the decoder does; `settled` gives what is wanted once it is sure."""

    def __init__(self, wanted: tuple[int, ...], *, num_threads: int) -> None:
        self._pending = deque(wanted)
        self._wanted = set(wanted)
        self._patience = MAX_HELD + 2 * num_threads
        self._fed = -1
        self._is_drained = False
        self._groups: deque[_Group] = deque([_Group(-1, NO_STAMP, is_whole=True)])
        self._came: dict[int, P] = {}
        self._stamps: dict[int, int] = {}
        self._awaited: dict[int, _Awaited] = {}
        self._holed: set[int] = set()
        self._refused = -1

    def feed(
        self,
        number: int,
        *,
        stamp: int,
        is_key: bool,
        is_behind_loss: bool = False,
        is_referred_to: bool | None = False,
        is_holed: bool = False,
    ) -> None:
        """A packet goes in. is_referred_to: of one that shows a picture; None where nobody knows,
        and a picture that does not come out is broken only if the decoder complains. is_holed: what
        comes out of it is not whole, whatever the decoder says.
        """
        self._fed = number
        if is_holed:
            self._holed.add(number)
        if is_key:
            self._begin(_Group(number, stamp))
        elif is_behind_loss:
            self._begin(_Group(number, NO_STAMP, is_whole=False))
        elif is_referred_to is not False:
            is_sure = is_holed or is_referred_to is True
            self._awaited[number] = _Awaited(stamp, is_sure=is_sure)
        if number in self._wanted:
            self._stamps[number] = stamp

    def refuse(self) -> None:
        """The decoder complained: of what went in last, or somewhat earlier."""
        self._refused = self._fed

    def take(self, number: int, picture: P) -> None:
        """A picture came out."""
        for group in self._groups:
            if group.number == number and group.is_whole is not False:
                group.is_whole = self._is_drawn_whole(number, picture)
        awaited = self._awaited.pop(number, None)
        if awaited is not None and not self._is_drawn_whole(number, picture):
            self._break(number, awaited)
        if number in self._wanted:
            self._came.setdefault(number, picture)

    def drain(self) -> None:
        """Nothing more goes in, and what was in is out."""
        self._is_drained = True

    def settled(self) -> Iterator[P | None]:
        """Wanted pictures, in order, as far as they are known; None for what is damaged."""
        while self._pending and self._is_known(self._pending[0]):
            number = self._pending.popleft()
            self._wanted.discard(number)
            picture = self._came.pop(number, None)
            is_whole = picture is not None and self._is_drawn_whole(number, picture)
            is_sound = is_whole and self._stands(number)
            self._stamps.pop(number, None)
            yield picture if is_sound else None

    @property
    def pending(self) -> tuple[int, ...]:
        """What is wanted and not settled yet, in order."""
        return tuple(self._pending)

    @property
    def is_done(self) -> bool:
        return not self._pending

    def _is_drawn_whole(self, number: int, picture: P) -> bool:
        return not picture.is_corrupt and number not in self._holed

    def _is_known(self, number: int) -> bool:
        if not self._is_drained and self._fed < number:
            return False
        if number not in self._came and not self._is_lost(number):
            return False
        if not self._is_judged_before(number):
            return False
        return all(self._is_judged(group) for group in self._needed(number))

    def _is_judged_before(self, number: int) -> bool:
        """Whether all that it may refer to is out, or lost."""
        for earlier in [each for each in self._awaited if each < number]:
            if not self._is_lost(earlier):
                return False
            awaited = self._awaited.pop(earlier)
            if awaited.is_sure or self._refused >= earlier:
                self._break(earlier, awaited)
        return True

    def _break(self, number: int, awaited: _Awaited) -> None:
        own = next((group for group in reversed(self._groups) if group.number <= number), None)
        if own is not None:
            own.note_broken(number, awaited.stamp)

    def _is_lost(self, number: int) -> bool:
        return self._is_drained or self._fed - number > self._patience

    def _is_judged(self, group: _Group) -> bool:
        if group.is_whole is None and self._is_lost(group.number):
            group.is_whole = False
        return group.is_whole is not None

    def _stands(self, number: int) -> bool:
        *before, own = self._needed(number)
        is_leading = bool(before)
        return own.stands_at(number, is_leading=is_leading) and all(
            group.stands_at(number, is_leading=False) for group in before
        )

    def _needed(self, number: int) -> list[_Group]:
        """The groups that a picture refers to: its own, and the one before if it is leading."""
        own, before = self._groups[0], self._groups[0]
        for group in self._groups:
            if group.number > number:
                break
            before, own = own, group
        is_leading = own.is_leading(self._stamps.get(number, NO_STAMP))
        return [before, own] if is_leading else [own]

    def _begin(self, group: _Group) -> None:
        """Add it, and keep the groups that a pending picture may belong to."""
        self._groups.append(group)
        oldest = self._pending[0] if self._pending else self._fed
        oldest = min(oldest, self._fed) - self._patience
        while len(self._groups) > 2 and self._groups[2].number <= oldest:
            self._groups.popleft()


def _first(known: int | None, number: int) -> int:
    return number if known is None else min(known, number)
