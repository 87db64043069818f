"""Candidates timed in turn, so that all of them see the same noise of the machine."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial


def interleaved(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int, warm_ups: int = 1
) -> dict[str, float]:
    """Return the median seconds of each candidate, run in turn so that all see the same noise."""
    timed = {name: partial(_seconds, run) for name, run in candidates.items()}
    return medians(timed, rounds=rounds, warm_ups=warm_ups)


def medians(
    candidates: Mapping[str, Callable[[], float]], *, rounds: int, warm_ups: int = 1
) -> dict[str, float]:
    """The same for candidates that time themselves, because not all they do is what is compared."""
    for _ in range(warm_ups):
        for run in candidates.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            gc.collect()
            seconds[name].append(run())
    return {name: statistics.median(values) for name, values in seconds.items()}


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
