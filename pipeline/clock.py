"""How long each stage of one video took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pipeline.tasks.records import Timings

Timed = Literal["plan", "read", "encode", "prefill", "generate"]


class Clock:
    """Adds up seconds by stage, from the moment it is made; monotonic."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._seconds: dict[Timed, float] = dict.fromkeys(
            ("plan", "read", "encode", "prefill", "generate"), 0.0
        )
        self._first_word_s: float | None = None

    def add(self, stage: Timed, seconds: float) -> None:
        self._seconds[stage] += seconds

    @contextmanager
    def timing(self, stage: Timed) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(stage, time.monotonic() - started)

    def mark_first_word(self) -> None:
        """Only the first call counts."""
        if self._first_word_s is None:
            self._first_word_s = time.monotonic() - self._started

    @property
    def timings(self) -> Timings:
        return Timings(
            plan_s=self._seconds["plan"],
            read_s=self._seconds["read"],
            encode_s=self._seconds["encode"],
            prefill_s=self._seconds["prefill"],
            generate_s=self._seconds["generate"],
            first_word_s=self._first_word_s,
            total_s=time.monotonic() - self._started,
        )
