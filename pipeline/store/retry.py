"""Repeating what may succeed: one helper, bounded in tries and in time."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import ConfigError, Transient

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long; pauses are drawn at random below a ceiling that doubles each time."""

    attempts: int = 8
    deadline_s: float = 120.0  # no new try starts so long after the first, or after any progress
    base_s: float = 0.1
    max_pause_s: float = 10.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.deadline_s, self.base_s, self.max_pause_s) <= 0:
            raise ConfigError(f"retry limits must be positive, got {self}")


def retry(
    call: Callable[[], T],
    policy: RetryPolicy,
    *,
    progress: Callable[[], int] = lambda: 0,
    told: Callable[[Transient, int], None] = lambda error, number: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Return call(), repeated on Transient until the policy is spent; then the last error rises.

    `call` must be idempotent: a try that failed may have taken effect.
    progress: grows while a call that goes on where it stopped gets anywhere; tries and time then
    count from there, so that a transfer may last. told: hears of each failed try that is followed
    by another, with that one's number.
    """
    start_s, attempt, reached = clock(), 1, progress()
    while True:
        try:
            return call()
        except Transient as error:
            if progress() > reached:
                start_s, attempt, reached = clock(), 1, progress()
            # Full jitter: clients that failed together must not come back together.
            ceiling_s = min(policy.max_pause_s, policy.base_s * 2 ** (attempt - 1))
            pause_s = random.uniform(0, ceiling_s)  # noqa: S311 - spreads load, guards nothing
            is_late = clock() - start_s + pause_s > policy.deadline_s
            if attempt == policy.attempts or is_late:
                raise
            attempt += 1
            told(error, attempt)
            sleep(pause_s)
