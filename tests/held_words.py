"""Answers that do not end before their test has done what it has to do to them."""

import math

import pytest

from pipeline.engine.commands import Step
from pipeline.engine.scheduler import Scheduler

LOOK_S = 0.001  # whether they are let go on


class HeldWords:
    """Engines write words as ever; when these are held, they do whatever else they are told."""

    __slots__ = ("_most", "_num_steps")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._num_steps = 0  # is theirs to count
        self._most = math.inf
        next_step, words_wait_s = Scheduler.next_step, Scheduler.words_wait_s

        def counted(scheduler: Scheduler, *, now_s: float) -> Step:
            step = next_step(scheduler, now_s=now_s)
            self._num_steps += bool(step.generations)
            return step

        def held_s(scheduler: Scheduler, *, now_s: float) -> float:
            is_writing = any(lane.running for lane in scheduler.lanes.values())
            is_held = is_writing and self._num_steps >= self._most
            return LOOK_S if is_held else words_wait_s(scheduler, now_s=now_s)

        monkeypatch.setattr(Scheduler, "next_step", counted)
        monkeypatch.setattr(Scheduler, "words_wait_s", held_s)

    def hold_after(self, num_steps: int) -> None:
        """In so many more of them words are written."""
        self._most = self._num_steps + num_steps

    def go_on(self) -> None:
        self._most = math.inf
