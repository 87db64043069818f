"""Interleaved timing of candidates and the table that shows their ratios."""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison. ratio > 1 means vidray is better; target is what the project promises."""

    what: str
    vidray: str
    peer: str
    ratio: float
    target: float
    at_most: bool = False  # the ratio is a cost: it has to stay below the target

    @property
    def holds(self) -> bool:
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


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


def print_table(rows: Iterable[Row], *, title: str, console: Console) -> None:
    """Print the rows; a figure that misses its target says so in words, not only in colour."""
    table = Table(title=title, title_justify="left")
    for name in ("what", "vidray", "against"):
        table.add_column(name)
    for name in ("ratio", "target", ""):
        table.add_column(name, justify="right")
    for row in rows:
        sign = "<=" if row.at_most else ">="
        verdict = "[green]holds[/]" if row.holds else "[red]missed[/]"
        table.add_row(
            row.what, row.vidray, row.peer, f"{row.ratio:.2f}", f"{sign} {row.target:g}", verdict
        )
    console.print(table)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"
