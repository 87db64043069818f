"""Which pictures came out of the decoder for which packets, and which of them are whole.

Pictures are known by the number of their packet, so one that does not come out, or comes out of
order, moves no other. What follows a keyframe that failed is damaged up to the next one that did
not: it is drawn upon something else. The verdict is the same wherever decoding began, but for the
first keyframe itself, which may need what stands before it.
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
    """A keyframe and what refers to it. is_whole: None until its picture is out, or lost."""

    number: int
    stamp: int
    is_whole: bool | None = None


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

    def feed(self, number: int, *, stamp: int, is_key: bool) -> None:
        """A packet goes in."""
        self._fed = number
        if is_key:
            self._groups.append(_Group(number, stamp))
        if number in self._wanted:
            self._stamps[number] = stamp

    def take(self, number: int, picture: P) -> None:
        """A picture came out."""
        for group in self._groups:
            if group.number == number:
                group.is_whole = not picture.is_corrupt
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
            is_whole = picture is not None and not picture.is_corrupt and self._stands(number)
            self._stamps.pop(number, None)
            yield picture if is_whole else None
        self._forget()

    @property
    def is_done(self) -> bool:
        return not self._pending

    def _is_known(self, number: int) -> bool:
        if not self._is_drained and self._fed < number:
            return False
        if number not in self._came and not self._is_lost(number):
            return False
        return all(self._is_judged(group) for group in self._needed(number))

    def _is_lost(self, number: int) -> bool:
        return self._is_drained or self._fed - number > self._patience

    def _is_judged(self, group: _Group) -> bool:
        if group.is_whole is None and self._is_lost(group.number):
            group.is_whole = False
        return group.is_whole is not None

    def _stands(self, number: int) -> bool:
        return all(group.is_whole for group in self._needed(number))

    def _needed(self, number: int) -> list[_Group]:
        """The groups that a picture refers to: its own, and the one before if it is shown first."""
        own, before = self._groups[0], self._groups[0]
        for group in self._groups:
            if group.number > number:
                break
            before, own = own, group
        is_leading = NO_STAMP < self._stamps.get(number, NO_STAMP) < own.stamp
        return [before, own] if is_leading else [own]

    def _forget(self) -> None:
        """Keep the groups that a pending picture may belong to."""
        oldest = self._pending[0] if self._pending else self._fed
        oldest = min(oldest, self._fed) - self._patience
        while len(self._groups) > 2 and self._groups[2].number <= oldest:
            self._groups.popleft()
