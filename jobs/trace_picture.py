"""A timeline file as a picture: a row per actor and track, a bar per slice, colours by stage."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from jobs.printable import printable
from pipeline.errors import ConfigError

WIDTH_PX, LABEL_PX, ROW_PX, BAR_PX, TOP_PX = 960, 190, 22, 16, 44
MAX_TICKS = 10
COLOURS = {
    "plan": "#8c8c8c",
    "read": "#4e79a7",
    "encode": "#f28e2b",
    "prefill": "#59a14f",
    "generate": "#b07aa1",
}


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice. started_ms counts from the first one."""

    track: tuple[int, int]
    stage: str
    name: str
    started_ms: float
    duration_ms: float


@dataclass(frozen=True, slots=True)
class TraceChart:
    """Bars, and the label of each track they stand on, top to bottom."""

    bars: tuple[Slice, ...]
    labels: dict[tuple[int, int], str]

    @classmethod
    def load(cls, path: Path) -> "TraceChart":
        """Read a file that --trace wrote; ConfigError if it is none, or empty."""
        try:
            events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
            bars = tuple(_bar(event) for event in events if event["ph"] == "X")
            actors = {pid: name for (pid, _), name in _names(events, "process_name").items()}
            tracks = _names(events, "thread_name")
            labels = {bar.track: f"{actors[bar.track[0]]}: {tracks[bar.track]}" for bar in bars}
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: not a timeline of vidray's") from error
        if not bars:
            raise ConfigError(f"{path}: nothing happened in it")
        return cls(bars, dict(sorted(labels.items())))

    @property
    def duration_ms(self) -> float:
        return max(bar.started_ms + bar.duration_ms for bar in self.bars)


def draw(trace: Path, picture: Path) -> None:
    """Write the timeline as an SVG. ConfigError for a file that is no timeline; OSError."""
    picture.write_text(svg(TraceChart.load(trace)), encoding="utf-8")


def svg(chart: TraceChart) -> str:
    height_px = TOP_PX + ROW_PX * len(chart.labels) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height_px}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="#333">',
        f'<rect width="{WIDTH_PX}" height="{height_px}" fill="white"/>',
        *_legend(chart.bars),
        *_axis(chart.duration_ms, height_px),
        *_rows(chart),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _rows(chart: TraceChart) -> Iterator[str]:
    tops = {track: TOP_PX + ROW_PX * row for row, track in enumerate(chart.labels)}
    for track, label in chart.labels.items():
        text = escape(_shortened(printable(label)))
        yield f'<text x="4" y="{tops[track] + 12}">{text}</text>'
    for bar in chart.bars:
        x = _x(bar.started_ms, chart.duration_ms)
        width = max(_x(bar.started_ms + bar.duration_ms, chart.duration_ms) - x, 0.6)
        title = f"{printable(bar.name)}: {bar.duration_ms:.1f} ms"
        yield (
            f'<rect x="{x:.1f}" y="{tops[bar.track]}" width="{width:.1f}" height="{BAR_PX}" '
            f'fill="{COLOURS[bar.stage]}" stroke="white" stroke-width="0.5">'
            f"<title>{escape(title)}</title></rect>"
        )


def _axis(duration_ms: float, height_px: int) -> Iterator[str]:
    step_ms = _step_ms(duration_ms)
    for tick in range(int(duration_ms / step_ms) + 1):
        x = _x(tick * step_ms, duration_ms)
        yield f'<path d="M{x:.1f} {TOP_PX - 6}V{height_px - 6}" stroke="#ddd"/>'
        yield (
            f'<text x="{x:.1f}" y="{TOP_PX - 10}" text-anchor="middle">'
            f"{tick * step_ms / 1000:g} s</text>"
        )


def _legend(bars: Sequence[Slice]) -> Iterator[str]:
    stages = {bar.stage for bar in bars}
    for number, stage in enumerate(stage for stage in COLOURS if stage in stages):
        x = LABEL_PX + 90 * number
        yield f'<rect x="{x}" y="4" width="10" height="10" fill="{COLOURS[stage]}"/>'
        yield f'<text x="{x + 14}" y="13">{stage}</text>'


def _x(time_ms: float, duration_ms: float) -> float:
    return LABEL_PX + (WIDTH_PX - LABEL_PX - 24) * time_ms / max(duration_ms, 1e-9)


def _step_ms(duration_ms: float) -> float:
    """1, 2 or 5 times a power of ten, so that at most MAX_TICKS fit."""
    steps = (factor * 10.0**power for power in range(-3, 9) for factor in (1, 2, 5))
    return next(step for step in steps if duration_ms <= step * MAX_TICKS)


def _shortened(label: str) -> str:
    """Its start, which names the actor, and its end, which names the question."""
    return label if len(label) <= 30 else f"{label[:14]}\N{HORIZONTAL ELLIPSIS}{label[-15:]}"


def _bar(event: dict[str, Any]) -> Slice:
    return Slice(
        track=(int(event["pid"]), int(event["tid"])),
        stage=str(event["cat"]) if event["cat"] in COLOURS else "plan",
        name=str(event["name"]),
        started_ms=float(event["ts"]) / 1000,
        duration_ms=float(event["dur"]) / 1000,
    )


def _names(events: Sequence[dict[str, Any]], kind: str) -> dict[tuple[int, int], str]:
    named = (event for event in events if event["name"] == kind)
    return {(int(e["pid"]), int(e["tid"])): str(e["args"]["name"]) for e in named}
