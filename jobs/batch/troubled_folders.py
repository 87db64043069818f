"""Folders of which the store serves nobody, while it serves others: a mount that is away for a
while, a policy that is wrong. Two videos of one folder tell it from a video that is gone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

SEVERAL = 2  # videos of a folder that fail, with none of it between them that got through
COMES_BACK = 1 / 10  # of the patience; then what is missing there counts as gone


@dataclass(slots=True)
class _Trouble:
    """uris: that failed since somebody got through, SEVERAL at most. since_s: of the first."""

    since_s: float = 0.0
    uris: set[str] = field(default_factory=set)
    passed_s: float = -math.inf  # when the latest try began that got through
    is_told: bool = False


class TroubledFolders:
    """Hears of every video that the store failed, or did not. Waits for nothing: reads `clock`.
    told: hears what is waited for, and "" when that is over.

    Covered: what comes back within COMES_BACK of the patience. Not covered: a video of which
    nobody else of its folder is tried meanwhile.
    """

    def __init__(
        self, *, patience_s: float, clock: Callable[[], float], told: Callable[[str], None]
    ) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._told = told
        self._troubles: dict[str, _Trouble] = {}

    def failed(self, uri: str) -> None:
        """The store did not serve it."""
        trouble = self._troubles.setdefault(_folder_of(uri), _Trouble())
        if not trouble.uris:
            trouble.since_s = self._clock()
        if len(trouble.uris) < SEVERAL:
            trouble.uris.add(uri)

    def passed(self, uri: str, began_s: float) -> None:
        """The store served it; what began before the trouble tells nothing of it."""
        trouble = self._troubles.get(_folder_of(uri))
        if trouble is None or began_s < trouble.since_s:
            return
        trouble.passed_s = max(trouble.passed_s, began_s)
        trouble.uris.clear()
        self._tell_over(trouble)

    def may_come_back(self, uri: str, *, since_s: float) -> bool:
        """Whether a video that was just not served may lie in a folder that is away: nobody of it
        got through who began since then.
        """
        folder = _folder_of(uri)
        trouble = self._troubles[folder]
        if len(trouble.uris) < SEVERAL or trouble.passed_s >= since_s:
            return False
        if self._clock() - trouble.since_s >= COMES_BACK * self._patience_s:
            self._tell_over(trouble)
            return False
        if not trouble.is_told:
            trouble.is_told = True
            self._told(f"the store serves others and none of {folder}, which may come back")
        return True

    def _tell_over(self, trouble: _Trouble) -> None:
        if trouble.is_told:
            trouble.is_told = False
            self._told("")


def _folder_of(uri: str) -> str:
    return uri.rpartition("/")[0]
