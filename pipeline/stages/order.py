"""Who goes first where several videos wait for one actor."""

from collections.abc import Callable, Iterable
from typing import TypeVar

Waiting = TypeVar("Waiting")
FAIR_EVERY = 8


class LeastLeftFirst:
    """Whoever is nearest to its end goes first: then words come soonest, and memory is freed.

    Shortest remaining processing time (Schrage 1968) gives the least mean time to the end. Served
    in turn, two long videos would both have their first word when both are through. Alone it lets
    the long ones starve, so every FAIR_EVERY-th time it is the turn of who has waited longest.
    """

    def __init__(self) -> None:
        self._num_times = 0

    def sorted(
        self, waiting: Iterable[Waiting], *, left: Callable[[Waiting], int]
    ) -> list[Waiting]:
        """waiting: longest first. left: what of its window one has still to go."""
        self._num_times += 1
        is_fair_turn = self._num_times % FAIR_EVERY == 0
        return list(waiting) if is_fair_turn else sorted(waiting, key=left)
