"""What is looked at: the Grafana board, `vidray top` and the endpoint's operator view show these.

A panel's query is written once; `promql` asks Prometheus for it, `values` works it out from two
metrics pages.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jobs.sight.samples import MetricSamples, Values, grouped, quantile
from pipeline.metric_table import METRICS, Teller

NOWHERE: Mapping[str, str] = {}
INSTANCES = 'instance=~"$instance"'  # of a board's variable


@dataclass(frozen=True, slots=True)
class Rate:
    """Of a counter, per second."""

    metric: str
    by: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)

    def promql(self, prefix: str) -> str:
        name = prefix + METRICS[self.metric].exported
        return f"{_over('sum', self.by)} (rate({name}{_matching(self.where)}[$__rate_interval]))"

    def values(self, before: MetricSamples, now: MetricSamples) -> Values:
        return grouped(now.rates(before, METRICS[self.metric].exported, self.where), self.by)


@dataclass(frozen=True, slots=True)
class Now:
    """Of a gauge, or of a counter since its process began; what is 0 may be left out."""

    metric: str
    by: tuple[str, ...] = ()
    how: Literal["sum", "max"] = "sum"
    above_zero: bool = False

    def promql(self, prefix: str) -> str:
        name = prefix + METRICS[self.metric].exported
        query = f"{_over(self.how, self.by)} ({name}{_matching(NOWHERE)})"
        return f"{query} > 0" if self.above_zero else query

    def values(self, before: MetricSamples, now: MetricSamples) -> Values:
        series = now.of(METRICS[self.metric].exported, NOWHERE)
        found = grouped(series, self.by, how=self.how)
        return {key: value for key, value in found.items() if value > 0 or not self.above_zero}


@dataclass(frozen=True, slots=True)
class Share:
    """One query's values as shares of another's."""

    part: "Query"
    whole: "Query"

    @property
    def by(self) -> tuple[str, ...]:
        return self.part.by

    def promql(self, prefix: str) -> str:
        return f"{self.part.promql(prefix)} / {self.whole.promql(prefix)}"

    def values(self, before: MetricSamples, now: MetricSamples) -> Values:
        wholes = self.whole.values(before, now)
        parts = self.part.values(before, now)
        return {key: part / wholes[key] for key, part in parts.items() if wholes.get(key)}


@dataclass(frozen=True, slots=True)
class Quantile:
    """Of a histogram's values meanwhile."""

    share: float
    metric: str
    by: tuple[str, ...] = ()

    def promql(self, prefix: str) -> str:
        buckets = f"{prefix}{self.metric}_bucket{_matching(NOWHERE)}"
        return f"histogram_quantile({self.share}, sum by (le) (rate({buckets}[$__rate_interval])))"

    def values(self, before: MetricSamples, now: MetricSamples) -> Values:
        rates = grouped(now.rates(before, f"{self.metric}_bucket", NOWHERE), ("le",))
        value = quantile(self.share, {float(bound): rate for (bound,), rate in rates.items()})
        return {} if math.isnan(value) else {(): value}


Query = Rate | Now | Share | Quantile


@dataclass(frozen=True, slots=True)
class Panel:
    """unit: frames/s, share, bytes, s, ..."""

    title: str
    unit: str
    query: Query


@dataclass(frozen=True, slots=True)
class PanelRow:
    """Panels about what one or two of them tell."""

    title: str
    told_by: tuple[Teller, ...]
    panels: tuple[Panel, ...]

    @property
    def prefix(self) -> str:
        """What stands before its metrics' names."""
        return "ray_" if "actor" in self.told_by else ""


WORK = PanelRow(
    "Work",
    ("job", "endpoint"),
    (
        Panel("Being worked on", "", Now("vidray_running")),
        Panel("Frames", "frames/s", Rate("vidray_frames", where={"stage": "read"})),
        Panel("Tokens", "tokens/s", Rate("vidray_tokens", by=("stage",))),
        Panel("Stages at work", "processes", Rate("vidray_busy_seconds", by=("stage",))),
        Panel("Queues", "temporal patches", Now("vidray_queue", by=("stage",))),
        Panel("On the way", "bytes", Now("vidray_on_the_way_bytes")),
        Panel("KV cache", "share", Now("vidray_kv_share", by=("process",), how="max")),
        Panel("First word, median", "s", Quantile(0.5, "vidray_first_word_seconds")),
        Panel("First word, 95 %", "s", Quantile(0.95, "vidray_first_word_seconds")),
        Panel("Failures", "", Now("vidray_failures", by=("code",), above_zero=True)),
        Panel(
            "Disk free",
            "share",
            Share(
                Now("vidray_disk_free_bytes", by=("place",), how="max"),
                Now("vidray_disk_size_bytes", by=("place",), how="max"),
            ),
        ),
    ),
)
JOBS = PanelRow(
    "Jobs",
    ("job",),
    (
        Panel("Done", "share", Share(Now("vidray_done_videos"), Now("vidray_planned_videos"))),
        Panel("Videos", "videos/s", Rate("vidray_videos", by=("status",))),
        Panel("Video", "s/s", Rate("vidray_video_seconds")),
        Panel("Parts", "", Now("vidray_parts")),
        Panel("Store", "calls/s", Rate("vidray_store_calls", by=("outcome", "verb"))),
        Panel(
            "A call on a store",
            "s",
            Share(
                Rate("vidray_store_seconds", by=("verb",)), Rate("vidray_store_calls", by=("verb",))
            ),
        ),
        Panel("Store, moved", "bytes/s", Rate("vidray_store_bytes", by=("verb",))),
        Panel("Breaker open", "", Now("vidray_breaker_open", by=("blame",), how="max")),
        Panel("Failed results", "", Now("vidray_result_failures", by=("code",), above_zero=True)),
    ),
)
ENDPOINT = PanelRow(
    "Endpoint",
    ("endpoint",),
    (
        Panel("Requests", "requests/s", Rate("vidray_requests", by=("status",))),
        Panel("Answers", "answers/s", Rate("vidray_answers", by=("status",))),
        Panel("Whole answer, 95 %", "s", Quantile(0.95, "vidray_answer_seconds")),
        Panel("Open streams", "", Now("vidray_open_streams")),
    ),
)
ACTORS = PanelRow(
    "Actors of a cluster",
    ("actor",),
    (
        Panel("Actors at work", "processes", Rate("vidray_busy_seconds", by=("stage",))),
        Panel("Chunks", "chunks/s", Rate("vidray_chunks", by=("stage",))),
        Panel("Tokens of actors", "tokens/s", Rate("vidray_tokens", by=("stage",))),
        Panel("Handed on", "bytes/s", Rate("vidray_bytes", by=("stage",))),
        Panel("Queues of actors", "pieces of work", Now("vidray_waiting", by=("stage",))),
        Panel("KV cache of decoders", "share", Now("vidray_kv_share", by=("process",), how="max")),
        Panel("KV tokens", "tokens", Now("vidray_kv_tokens", by=("process",))),
    ),
)
INGEST = PanelRow(
    "Ingest",
    ("ingest",),
    (
        Panel("Ticks", "", Now("vidray_ticks", by=("schedule", "state"))),
        Panel("Found", "videos", Now("vidray_found_videos", by=("kind", "schedule"))),
        Panel("Ticks that wait", "", Now("vidray_waiting_ticks", by=("schedule",))),
        Panel("Overdue", "s", Now("vidray_tick_overdue_seconds", by=("schedule",), how="max")),
        Panel("Batches under way", "", Now("vidray_batches_under_way", by=("schedule",))),
    ),
)
ROWS = (WORK, JOBS, ENDPOINT, ACTORS, INGEST)


def rows_for(teller: Teller) -> tuple[PanelRow, ...]:
    """What can be seen on one page."""
    return tuple(row for row in ROWS if teller in row.told_by)


def _over(how: str, by: tuple[str, ...]) -> str:
    return f"{how} by ({', '.join(by)})" if by else how


def _matching(where: Mapping[str, str]) -> str:
    return (
        "{" + ", ".join([INSTANCES, *(f'{name}="{value}"' for name, value in where.items())]) + "}"
    )
