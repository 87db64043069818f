"""The numbers of one process, as Prometheus reads them. Names and labels are those of the table."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline.metric_table import SECONDS, Metric, Teller, told_by


class Meters:
    """Of a job or an endpoint. A name or a label that the table does not have is a KeyError or a
    ValueError: nothing is counted that nobody can read up on.
    """

    def __init__(self, teller: Teller) -> None:
        self.registry = CollectorRegistry()
        self._made = {each.name: _made(each, self.registry) for each in told_by(teller)}

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """To a counter."""
        self._series(name, labels).inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """A gauge."""
        self._series(name, labels).set(value)

    def observe(self, name: str, value: float) -> None:
        """A value of a histogram."""
        self._made[name].observe(value)

    def follow(self, name: str, value: Callable[[], float], **labels: str) -> None:
        """A gauge that is what the function says whenever somebody looks."""
        self._series(name, labels).set_function(value)

    def page(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)

    def _series(self, name: str, labels: dict[str, str]) -> Any:
        made = self._made[name]
        return made.labels(**labels) if labels else made


def _made(metric: Metric, registry: CollectorRegistry) -> Any:
    names = [label.name for label in metric.labels]
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.text, names, buckets=SECONDS, registry=registry)
    kind = Counter if metric.kind == "counter" else Gauge
    made = kind(metric.name, metric.text, names, registry=registry)
    for values in _known(metric):
        made.labels(*values)
    return made


def _known(metric: Metric) -> Iterator[tuple[str, ...]]:
    """Series that are there from the start: a rate begins with the first event, not the second."""
    if metric.labels:
        yield from product(*(label.values for label in metric.labels))
