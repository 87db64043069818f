"""Folders of which the store serves nobody, while it serves others: a mount that is away for a
while, a policy that is wrong. What is missing in one that stays away is gone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

SEVERAL = 3  # videos of a folder that fail: they may say more than that they are gone
COMES_BACK = 1 / 10  # of the patience; then what is missing there counts as gone
PAUSE = 1 / 120  # of the patience, and later as long as the folder is away already


@dataclass(slots=True)
class _Trouble:
    """failed_s: who failed since somebody got through, and when last. since_s: the first."""

    since_s: float = 0.0
    failed_s: dict[str, float] = field(default_factory=dict)
    passed_s: float = -math.inf  # when the latest try began that got through


class TroubledFolders:
    """Hears of every video that the store failed, or did not. Waits for nothing: reads `clock`.

    Covered: what comes back within COMES_BACK of the patience. Not covered: what lies in a folder
    that was away for longer before somebody of it was tried again.
    """

    def __init__(self, *, patience_s: float, clock: Callable[[], float]) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._troubles: dict[str, _Trouble] = {}
        self._waited_for: dict[str, None] = {}  # folders, in order

    @property
    def waited_for(self) -> str:
        """In words; "" where nothing is."""
        first = next(iter(self._waited_for), None)
        if first is None:
            return ""
        return f"the store serves others and none of {first}, which may come back"

    def failed(self, uri: str, *, passed_s: float) -> bool:
        """The store did not serve it. Whether that says something of the store: a video that is
        still missing does so only beside SEVERAL, and where nobody at all got through meanwhile.

        passed_s: when the latest try of any video began that got through.
        """
        trouble = self._troubles.setdefault(_folder_of(uri), _Trouble())
        if not trouble.failed_s:
            trouble.since_s = self._clock()
        before_s = trouble.failed_s.get(uri)
        trouble.failed_s[uri] = self._clock()
        return before_s is None or (len(trouble.failed_s) >= SEVERAL and passed_s < before_s)

    def passed(self, uri: str, began_s: float) -> None:
        """The store served it; what began before the trouble tells nothing of it."""
        folder = _folder_of(uri)
        trouble = self._troubles.get(folder)
        if trouble is None or began_s < trouble.since_s:
            return
        trouble.passed_s = max(trouble.passed_s, began_s)
        trouble.failed_s.clear()
        self._waited_for.pop(folder, None)

    def wait_s(self, uri: str, *, since_s: float) -> float:
        """Until the next try of a video that was just not served, and whose folder may be away:
        nobody of it got through who began since then. 0 where it may not.
        """
        folder = _folder_of(uri)
        trouble = self._troubles[folder]
        if trouble.passed_s >= since_s:
            return 0.0
        away_s = self._clock() - trouble.since_s
        left_s = COMES_BACK * self._patience_s - away_s
        if left_s <= 0:
            self._waited_for.pop(folder, None)
            return 0.0
        self._waited_for[folder] = None
        return min(left_s, max(PAUSE * self._patience_s, away_s))


def _folder_of(uri: str) -> str:
    return uri.rpartition("/")[0]
