"""What a metrics page says at one moment, and what happened between two of them."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Values = dict[tuple[str, ...], float]  # by the values of some labels


@dataclass(frozen=True, slots=True)
class MetricSamples:
    """at_s: on some clock, the same for those that are held against each other."""

    at_s: float
    series: Mapping[str, Mapping[Labels, float]]  # by name, then by labels

    @classmethod
    def parse(cls, page: str, *, at_s: float) -> "MetricSamples":
        """ValueError for what is no metrics page."""
        series: dict[str, dict[Labels, float]] = defaultdict(dict)
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                series[sample.name][frozenset(sample.labels.items())] = sample.value
        return cls(at_s, dict(series))

    def of(self, name: str, where: Mapping[str, str]) -> dict[Labels, float]:
        """Series with these labels."""
        wanted = set(where.items())
        return {at: value for at, value in self.series.get(name, {}).items() if wanted <= at}

    def rates(
        self, before: "MetricSamples", name: str, where: Mapping[str, str]
    ) -> dict[Labels, float]:
        """Per second since then; a counter that was set back began anew at 0, as did a new one."""
        passed_s = max(self.at_s - before.at_s, 1e-9)
        earlier = before.of(name, where)
        return {
            at: (value - earlier.get(at, 0.0) if value >= earlier.get(at, 0.0) else value)
            / passed_s
            for at, value in self.of(name, where).items()
        }


def grouped(series: Mapping[Labels, float], by: Sequence[str], *, how: str = "sum") -> Values:
    """Sums, or the largest (max), by the values of these labels."""
    groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for at, value in series.items():
        labels = dict(at)
        groups[tuple(labels.get(name, "") for name in by)].append(value)
    return {key: max(values) if how == "max" else sum(values) for key, values in groups.items()}


def quantile(share: float, buckets: Mapping[float, float]) -> float:
    """As Prometheus' histogram_quantile estimates it: linear within a bucket; NaN where none fell.

    buckets: how many were at most so large, by that bound; the last one is infinite.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if not total:
        return math.nan
    rank, below, low = share * total, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return low
            inside = buckets[bound] - below
            return low + (bound - low) * ((rank - below) / inside if inside else 1.0)
        below, low = buckets[bound], bound
    return low
