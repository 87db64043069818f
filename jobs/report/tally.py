"""What the top of the page says of all rows together; holds numbers only, so rows can stream by."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from pipeline.model.declared import DEMO_FLAG
from pipeline.tasks.records import Record

STAGES = {
    "read": "read_s",
    "encode": "encode_s",
    "prefill": "prefill_s",
    "write": "generate_s",
    "first word": "first_word_s",
    "whole video": "total_s",
}
NUM_BINS = 24
PLOT_WIDTH, PLOT_HEIGHT = 480.0, 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of a histogram, in the plot's own units, y down."""

    x: float
    y: float
    width: float
    height: float
    count: int
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """Seconds a stage took over all good videos, and each as a share of the longest p95."""

    name: str
    median_s: float
    p95_s: float
    median_share: float
    p95_share: float


@dataclass(slots=True)
class Tally:
    """Counts and timings of the records it was given."""

    num_videos: int = 0
    num_failed: int = 0
    num_flagged: int = 0  # but for the flag of every row of a demo model
    num_demo: int = 0
    num_tokens: int = 0
    num_frames: int = 0
    video_s: float = 0.0
    work_s: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    result_failures: Counter[str] = field(default_factory=Counter)  # within good videos
    models: Counter[str] = field(default_factory=Counter)
    times_s: dict[str, "array[float]"] = field(
        default_factory=lambda: {name: array("d") for name in STAGES}
    )

    def add(self, record: Record) -> None:
        """Count one record."""
        self.num_videos += 1
        self.models[record.provenance.model] += 1
        self.work_s += record.timings.total_s
        self.num_demo += DEMO_FLAG in record.flags
        if record.code is not None:
            self.num_failed += 1
            self.failures[record.code] += 1
            return
        self.result_failures.update(record.result_codes)
        self.num_flagged += any(flag != DEMO_FLAG for flag in record.flags)
        if record.media is not None:
            self.video_s += record.media.duration_s
        if record.plan is not None:
            self.num_tokens += record.plan.num_tokens
            self.num_frames += record.plan.num_frames
        for name, column in STAGES.items():
            value = getattr(record.timings, column)
            if value is not None:
                self.times_s[name].append(value)

    @property
    def num_ok(self) -> int:
        return self.num_videos - self.num_failed

    @property
    def stages(self) -> list[StageTime]:
        """Every stage that was measured, in the order of the work."""
        figures = {
            name: (quantile(times_s, 0.5), quantile(times_s, 0.95))
            for name, times_s in self.times_s.items()
            if times_s
        }
        longest = max((p95 for _, p95 in figures.values()), default=0.0) or 1.0
        return [
            StageTime(
                name=name,
                median_s=median,
                p95_s=p95,
                median_share=median / longest,
                p95_share=p95 / longest,
            )
            for name, (median, p95) in figures.items()
        ]

    @property
    def histogram(self) -> list[Bar]:
        """How long whole videos took; empty when fewer than two were measured."""
        return histogram(self.times_s["whole video"])


def quantile(values: "array[float]", share: float) -> float:
    """The smallest value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def histogram(values: "array[float]") -> list[Bar]:
    """Equal steps from 0 to the largest value; only an empty step has no height."""
    if len(values) < 2 or max(values) <= 0:
        return []
    step = max(values) / NUM_BINS
    counts = Counter(min(int(value / step), NUM_BINS - 1) for value in values)
    tallest = max(counts.values())
    bars = []
    for index, (low, high) in enumerate(pairwise(step * edge for edge in range(NUM_BINS + 1))):
        count = counts[index]
        height = max(PLOT_HEIGHT * count / tallest, 1.0) if count else 0.0
        width = PLOT_WIDTH / NUM_BINS
        bars.append(
            Bar(
                x=index * width,
                y=PLOT_HEIGHT - height,
                width=width - 2,
                height=height,
                count=count,
                low=low,
                high=high,
            )
        )
    return bars
