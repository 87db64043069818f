"""The panels with what they say now: as values for pages, as text for terminals."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.sight.panels import ENDPOINT, INGEST, JOBS, WORK, PanelRow
from jobs.sight.samples import MetricSamples
from pipeline.config import MIB

WINDOW_S = 10.0  # what "now" means
MAX_VALUES = 8  # of one panel


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of a panel. labels: what it is of, as in ("read",)."""

    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class PanelView:
    """A panel and its values, the largest first where there are many."""

    title: str
    unit: str
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class RowView:
    """Of a row the panels that say something."""

    title: str
    panels: tuple[PanelView, ...]


def look(before: MetricSamples, now: MetricSamples) -> list[RowView]:
    """What a job, an endpoint or ingest says of the time between two looks at its page."""
    rows = (WORK, JOBS, ENDPOINT, INGEST)
    seen = (RowView(row.title, tuple(_panels(row, before, now))) for row in rows)
    return [row for row in seen if row.panels]


def _panels(row: PanelRow, before: MetricSamples, now: MetricSamples) -> list[PanelView]:
    views = []
    for panel in row.panels:
        values = panel.query.values(before, now)
        if len(values) > MAX_VALUES:
            most = sorted(values, key=lambda labels: -values[labels])[:MAX_VALUES]
            values = {labels: values[labels] for labels in most}
        readings = tuple(Reading(labels, value) for labels, value in values.items())
        if readings:
            views.append(PanelView(panel.title, panel.unit, readings))
    return views


class Lookback:
    """Looks at one page again and again: rates are of the last WINDOW_S, or since the look before
    where that is longer ago.
    """

    def __init__(self, first: MetricSamples) -> None:
        self._taken = deque([first])

    def look(self, now: MetricSamples) -> tuple[float, list[RowView]]:
        """For how many seconds it stands, and what is seen."""
        while len(self._taken) > 1 and self._taken[1].at_s <= now.at_s - WINDOW_S:
            self._taken.popleft()
        before = self._taken[0]
        self._taken.append(now)
        return now.at_s - before.at_s, look(before, now)


def body(window_s: float, rows: Sequence[RowView]) -> dict[str, Any]:
    """As JSON."""
    return {
        "object": "vidray.sight",
        "window_s": round(window_s, 3),
        "rows": [
            {
                "title": row.title,
                "panels": [
                    {
                        "title": panel.title,
                        "unit": heading_unit(panel.unit),
                        "values": [
                            {
                                "of": " ".join(reading.labels),
                                "value": reading.value,
                                "text": number(reading.value, panel.unit),
                            }
                            for reading in panel.readings
                        ],
                    }
                    for panel in row.panels
                ],
            }
            for row in rows
        ],
    }


def shown(value: float, unit: str) -> str:
    """As in "12 %", "3.1 MiB", "0.4 tokens/s"."""
    return f"{number(value, unit)} {heading_unit(unit)}".strip()


def heading_unit(unit: str) -> str:
    """The unit where it is said once for many values; "" where each of them says its own."""
    return "" if unit in ("share", "s") or unit.startswith("bytes") else unit


def number(value: float, unit: str) -> str:
    """As in "12 %", "3.1 MiB", "0.042 s", "1,234"; what is countless small is 0."""
    if unit == "share":
        return f"{value:.0%}".replace("%", " %")
    if unit.startswith("bytes"):
        return f"{value / MIB:,.1f} MiB{unit.removeprefix('bytes')}"
    if unit == "s":
        return f"{value:.3g} s"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
