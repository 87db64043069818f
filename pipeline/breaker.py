"""A circuit breaker: tells one item that fails from surroundings in which nobody gets through."""

import math
import time
from collections.abc import Callable

IN_A_ROW = 3  # different items, with nobody between them who got through
FIRST_PAUSE = 1 / 300  # of the patience; each pause is twice as long as the one before
LAST_PAUSE = 1 / 20


class Breaker:
    """Closed, all may pass. It opens when different items fail in a row, and closes with a success.

    While it is open there is one probe after each pause; all others wait. It decides nothing for
    an item that fails beside others that get through. What began before the first failure and ends
    well tells nothing of what came since. Waits for nothing: it reads `clock`.
    patience_s: for how long it may be open before whoever waits should give up.
    """

    def __init__(self, *, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._failed: set[str] = set()  # since somebody got through
        self._failing_since_s = 0.0
        self._opened_s: float | None = None
        self._pause_s = 0.0
        self._probe_s = 0.0  # when the next probe may go
        self.passed_s = -math.inf  # when the latest try began that got through

    @property
    def is_open(self) -> bool:
        return self._opened_s is not None

    @property
    def is_spent(self) -> bool:
        """It has been open for longer than the patience."""
        return self._opened_s is not None and self._clock() - self._opened_s >= self._patience_s

    @property
    def num_failed(self) -> int:
        """Different items, since somebody got through."""
        return len(self._failed)

    @property
    def wait_s(self) -> float:
        """Until the next probe may go; 0 where all may pass."""
        return max(0.0, self._probe_s - self._clock()) if self.is_open else 0.0

    def passed(self, began_s: float) -> None:
        """Somebody got through who began at this time of the clock."""
        self.passed_s = max(self.passed_s, began_s)
        if began_s >= self._failing_since_s:
            self._failed.clear()
            self._opened_s = None

    def failed(self, item: str) -> None:
        """An item did not. What began before it opened and fails now tells nothing new."""
        if not self._failed:
            self._failing_since_s = self._clock()
        self._failed.add(item)
        if not self.is_open:
            if len(self._failed) >= IN_A_ROW:
                self.trip()
        elif self.wait_s == 0:
            self._pause_s = min(2 * self._pause_s, LAST_PAUSE * self._patience_s)
            self._probe_s = self._clock() + self._pause_s

    def trip(self) -> None:
        """Open it: somebody knows that nobody gets through."""
        self._opened_s = self._clock()
        self._pause_s = FIRST_PAUSE * self._patience_s
        self._probe_s = self._opened_s + self._pause_s
