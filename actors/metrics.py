"""What an actor counts of its work; Ray exports it, README lists it."""

from collections.abc import Mapping

import ray
from ray.util.metrics import Counter, Gauge

from pipeline.span import Process, Span

TAGS = ("stage",)
COUNTED = {
    "vidray_chunks": "Chunks that a stage is through with.",
    "vidray_frames": "Frames in them.",
    "vidray_tokens": "Tokens that a stage made or took.",
    "vidray_bytes": "Bytes that a stage handed on.",
    "vidray_busy_seconds": "Seconds at work; a decoder's step counts for all that is in it.",
}


class Metrics:
    """Of one actor. Without a collector on its node the numbers go nowhere."""

    def __init__(self) -> None:
        self._counters = {
            name: Counter(name, text, tag_keys=TAGS) for name, text in COUNTED.items()
        }
        self._waiting = Gauge("vidray_waiting", "Pieces of work in a stage's queue.", tag_keys=TAGS)
        self._kv_share = Gauge("vidray_kv_share", "Of a decoder's token budget, what is held.")
        self._kv_tokens = Gauge("vidray_kv_tokens", "Tokens that open streams hold in a decoder.")

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
                self._counters[name].inc(amount, tags=tags)
        self._waiting.set(num_waiting, tags=tags)

    def hold(self, num_tokens: int, *, max_tokens: int) -> None:
        """Say how full a decoder is."""
        self._kv_tokens.set(num_tokens)
        self._kv_share.set(num_tokens / max_tokens)


def process_of_actor() -> Process:
    """This actor's process, named as the fleet calls it: vidray-1f2e3d4c/encoder-0 is encoder-0."""
    name = ray.get_runtime_context().get_actor_name() or "actor"
    return Process.here(name.rpartition("/")[2])
