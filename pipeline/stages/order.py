"""Who goes first where several videos wait for one actor."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Waiting = TypeVar("Waiting")
FAIR_EVERY = 8


def never(waiting: object) -> bool:
    """Whether it yields, where nobody does."""
    return False


class LeastLeftFirst:
    """Whoever is nearest to its end goes first: then words come soonest, and memory is freed.

    Shortest remaining processing time (Schrage 1968) gives the least mean time to the end. Served
    in turn, two long videos would both have their first word when both are through. What yields
    comes after all that does not. Alone that lets the long and the yielding ones starve, so every
    FAIR_EVERY-th time it is the turn of who has waited longest.
    """

    def __init__(self) -> None:
        self._num_times = 0

    def sorted(
        self,
        waiting: Iterable[Waiting],
        *,
        left: Callable[[Waiting], int],
        yields: Callable[[Waiting], bool] = never,
    ) -> list[Waiting]:
        """waiting: longest first. left: what of its window one has still to go."""
        self._num_times += 1
        is_fair_turn = self._num_times % FAIR_EVERY == 0
        if is_fair_turn:
            return list(waiting)
        return sorted(waiting, key=lambda each: (yields(each), left(each)))


class YieldingLast:
    """Who is let in next where there is room for some: what does not yield, and of equals who has
    waited longest.

    Whoever yields is passed FAIR_EVERY times; then it is the turn of who has waited longest until
    one that yields is in.
    """

    def __init__(self) -> None:
        self._num_passed = 0

    def sorted(
        self, waiting: Sequence[Waiting], *, yields: Callable[[Waiting], bool]
    ) -> list[Waiting]:
        """waiting: longest first."""
        return list(waiting) if self._num_passed >= FAIR_EVERY else sorted(waiting, key=yields)

    def let_in(self, *, yields: bool, is_passing: bool) -> None:
        """One is in; is_passing: one that yields still waits."""
        self._num_passed = 0 if yields else self._num_passed + is_passing
