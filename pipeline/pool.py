"""Several that do the same work, and which of them has the least to do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Member = TypeVar("Member")


@dataclass(frozen=True, slots=True)
class Berth(Generic[Member]):
    """A member with some load of this process's on it, until it is given back."""

    member: Member
    give_back: Callable[[], None] = field(repr=False)


class Pool(Generic[Member]):
    """Knows the load that this process has put on each of its members."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self._loads = [0] * len(self.members)

    def least_loaded(self, *, load: int) -> Berth[Member]:
        """The member with the smallest load, which is `load` larger until the place is given back.

        Giving back twice is once.
        """
        chosen = min(range(len(self.members)), key=self._loads.__getitem__)
        self._loads[chosen] += load
        is_held = True

        def give_back() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._loads[chosen] -= load

        return Berth(self.members[chosen], give_back)
