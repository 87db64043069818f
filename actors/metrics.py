"""What an actor counts of its work; Ray exports it, docs/metrics.md lists it."""

from collections.abc import Mapping
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge

from pipeline.metric_table import Metric, told_by
from pipeline.span import Process, Span

_MADE_BY = {"counter": Counter, "gauge": Gauge}


def _made(metric: Metric) -> Any:
    keys = tuple(label.name for label in metric.labels)
    return _MADE_BY[metric.kind](metric.name, metric.text, tag_keys=keys)


class Metrics:
    """Of one actor. Without a collector on its node the numbers go nowhere."""

    def __init__(self) -> None:
        self._made = {metric.name: _made(metric) for metric in told_by("actor")}
        self._process = {"process": process_of_actor().name}

    def count(self, span: Span, *, num_chunks: int = 1, num_waiting: int = 0) -> None:
        """Add a span's work to the sums; num_waiting: what is in the stage's queue after it."""
        tags: dict[str, str] = {"stage": span.stage}
        amounts: Mapping[str, float] = {
            "vidray_chunks": num_chunks,
            "vidray_frames": span.num_frames,
            "vidray_tokens": span.num_tokens,
            "vidray_bytes": span.num_bytes,
            "vidray_busy_seconds": span.duration_s,
        }
        for name, amount in amounts.items():
            if amount > 0:  # Ray refuses to add nothing
                self._made[name].inc(amount, tags=tags)
        self._made["vidray_waiting"].set(num_waiting, tags=tags)

    def hold(self, num_tokens: int, *, max_tokens: int) -> None:
        """Say how full a decoder is."""
        self._made["vidray_kv_tokens"].set(num_tokens, tags=self._process)
        self._made["vidray_kv_share"].set(num_tokens / max_tokens, tags=self._process)


def process_of_actor() -> Process:
    """This actor's process, named as the fleet calls it: vidray-1f2e3d4c/encoder-0 is encoder-0."""
    name = ray.get_runtime_context().get_actor_name() or "actor"
    return Process.here(name.rpartition("/")[2])
