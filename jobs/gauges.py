"""What a fleet at work is doing now: rates, bytes on their way, KV use, and who holds it up."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from threading import Lock

from pipeline.config import MIB
from pipeline.events import Event, Moved, Planned, Words
from pipeline.span import Span, Stage

WINDOW_S = 10.0  # what "now" means
LEAST_SHARE = 0.5  # of the time; a stage that works less is not what the others wait for
WORK_STAGES: tuple[Stage, ...] = ("read", "encode", "prefill", "generate")

Chunk = tuple[str, int, int]  # video, window, chunk


class Gauges:
    """Fed by the events of any number of videos; `cells` may be called at any time, by any thread.

    clock: Unix time, which spans of all machines can be held against.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = Lock()
        self._started_s: float | None = None
        self._spans: list[Span] = []  # of the last WINDOW_S
        self._bytes: dict[Chunk, int] = defaultdict(int)
        self._kv_shares: dict[str, float] = {}  # by decoder, as it last said
        self._open: set[str] = set()

    def hear(self, video: str, event: Event) -> None:
        """What happened to a video that is `done` when its record is made."""
        span = event.span
        if isinstance(event, Words) and not event.text:
            return
        with self._lock:
            now_s = self._clock()
            if self._started_s is None:
                self._started_s = min(now_s, span.started_unix_s)
            self._open.add(video)
            self._spans.append(span)
            self._forget(now_s)
            if isinstance(event, Planned):
                self._drop(video)  # after a loss it starts anew
            elif isinstance(event, Moved):
                chunk = (video, event.window_index, event.chunk_index)
                if event.stage == "prefill":
                    self._bytes.pop(chunk, None)
                else:
                    self._bytes[chunk] += span.num_bytes
            if span.kv_share is not None:
                self._kv_shares[span.process.name] = span.kv_share

    def done(self, video: str) -> None:
        """Nothing of the video is on its way any more."""
        with self._lock:
            self._drop(video)
            self._open.discard(video)

    def cells(self) -> list[str]:
        """As in "all wait for encode", "KV 12%", "31 frames/s read"; what matters most is first.

        Empty between videos.
        """
        with self._lock:
            if not self._open or self._started_s is None:
                return []
            now_s = self._clock()
            self._forget(now_s)
            window_s = min(WINDOW_S, max(now_s - self._started_s, 1e-9))
            spans, num_bytes = list(self._spans), sum(self._bytes.values())
            shares = list(self._kv_shares.values())
        cells = []
        if (slowest := bottleneck(spans, since_s=now_s - window_s, until_s=now_s)) is not None:
            cells.append(f"all wait for {slowest}")
        if shares:
            cells.append(f"KV {sum(shares) / len(shares):.0%}")
        return [*cells, *_rates(spans, window_s), f"{num_bytes / MIB:.1f} MiB on the way"]

    def _drop(self, video: str) -> None:
        for chunk in [chunk for chunk in self._bytes if chunk[0] == video]:
            del self._bytes[chunk]

    def _forget(self, now_s: float) -> None:
        first = self._spans[0] if self._spans else None
        if first is not None and first.ended_unix_s < now_s - WINDOW_S:
            kept = [span for span in self._spans if span.ended_unix_s >= now_s - WINDOW_S]
            self._spans = kept


def bottleneck(spans: Sequence[Span], *, since_s: float, until_s: float) -> Stage | None:
    """The stage the others wait for: the one whose processes are at work for most of the time.

    Stages wait for each other's chunks and for room, so when a pipeline is held up, it is by the
    one that never waits. None if none works for half of the time: then all wait for something else.
    since_s, until_s: Unix times.
    """
    shares = {stage: _share(spans, stage, since_s, until_s) for stage in WORK_STAGES}
    busiest = max(WORK_STAGES, key=lambda stage: shares[stage])
    return busiest if shares[busiest] >= LEAST_SHARE else None


def _share(spans: Sequence[Span], stage: Stage, since_s: float, until_s: float) -> float:
    """Of the time, what a process of this stage was at work; the mean over its processes."""
    processes: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for span in spans:
        if span.stage == stage:
            spell = (max(span.started_unix_s, since_s), min(span.ended_unix_s, until_s))
            processes[span.process.machine, span.process.process_id].append(spell)
    if not processes:
        return 0.0
    return sum(map(_covered_s, processes.values())) / len(processes) / max(until_s - since_s, 1e-9)


def _covered_s(spells: Sequence[tuple[float, float]]) -> float:
    """Seconds that lie in at least one of the spells: a batch is one piece of work."""
    covered_s, end_s = 0.0, float("-inf")
    for started_s, ended_s in sorted(spells):
        covered_s += max(0.0, ended_s - max(started_s, end_s))
        end_s = max(end_s, ended_s)
    return covered_s


def _rates(spans: Sequence[Span], window_s: float) -> Iterator[str]:
    of = {stage: [span for span in spans if span.stage == stage] for stage in WORK_STAGES}
    amounts = {
        "frames/s read": sum(span.num_frames for span in of["read"]),
        "tokens/s encoded": sum(span.num_tokens for span in of["encode"]),
        "tokens/s prefilled": sum(span.num_tokens for span in of["prefill"]),
        "words/s": len(of["generate"]),
    }
    for unit, amount in amounts.items():
        yield f"{amount / window_s:.0f} {unit}"
