"""The work on videos in numbers: fed by their events, wherever the stages run."""

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock

from jobs.sight.meters import Meters
from pipeline.events import Event, Moved, Planned, Words
from pipeline.metric_table import WAITED_FOR
from pipeline.span import Span

Chunk = tuple[int, int]  # window, chunk
OBJECT_STORE = Path("/dev/shm")  # noqa: S108 - where Ray keeps it
_NEXT = {"read": "encode", "encode": "prefill"}


@dataclass(slots=True)
class _Moving:
    """What of one video is between stages: temporal patches before each, bytes of each chunk."""

    queued: Counter[str] = field(default_factory=Counter)
    bytes: dict[Chunk, int] = field(default_factory=dict)


class WorkMeters:
    """Hears of any number of videos, from any thread; a job may have thousands at work."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._lock = Lock()
        self._moving: dict[str, _Moving] = {}
        self._queued: Counter[str] = Counter()  # of all videos together
        self._num_bytes = 0
        self._busy_until_s: dict[tuple[str, int], float] = {}  # by process, on its clock

    def hear(self, video: str, event: Event) -> None:
        """What happened to a video, until it is `done`."""
        with self._lock:
            if isinstance(event, Planned) and event.num_steps:  # else it was watched before
                self._forget(video)  # after a loss it starts anew
                self._queue(video, "read", event.num_steps)
            elif isinstance(event, Moved):
                self._move(video, event)
            elif isinstance(event, Words) and event.span.num_tokens:
                self._meters.add("vidray_tokens", event.span.num_tokens, stage="generate")
            self._show()

    def done(self, video: str) -> None:
        """Nothing of the video is on its way any more."""
        with self._lock:
            self._forget(video)
            self._show()

    def _move(self, video: str, event: Moved) -> None:
        stage, span = event.stage, event.span
        amounts = {
            "vidray_chunks": 1,
            "vidray_frames": span.num_frames,
            "vidray_tokens": span.num_tokens,
            "vidray_bytes": span.num_bytes,
            "vidray_busy_seconds": self._busy_s(span),
        }
        for name, amount in amounts.items():
            if amount:  # a stage has no series of what it does not make
                self._meters.add(name, amount, stage=stage)
        if span.kv_share is not None:
            self._meters.set("vidray_kv_share", span.kv_share, process=span.process.name)
        self._queue(video, stage, -event.num_steps)
        if stage in _NEXT:
            self._queue(video, _NEXT[stage], event.num_steps)
        sizes = self._moving[video].bytes
        chunk = (event.window_index, event.chunk_index)
        before = sizes.pop(chunk, 0)
        if stage in _NEXT:
            sizes[chunk] = before + span.num_bytes
        self._num_bytes += sizes.get(chunk, 0) - before

    def _queue(self, video: str, stage: str, num_steps: int) -> None:
        """Add patches before a stage, or take them away; never more than there are."""
        queued = self._moving.setdefault(video, _Moving()).queued
        num_steps = max(num_steps, -queued[stage])
        queued[stage] += num_steps
        self._queued[stage] += num_steps

    def _busy_s(self, span: Span) -> float:
        """What the span adds to its process's time at work: chunks of one batch share theirs."""
        process = (span.process.machine, span.process.process_id)
        until_s = self._busy_until_s.get(process, span.started_s)
        self._busy_until_s[process] = max(until_s, span.ended_s)
        return max(0.0, span.ended_s - max(span.started_s, until_s))

    def _forget(self, video: str) -> None:
        moving = self._moving.pop(video, _Moving())
        self._queued.subtract(moving.queued)
        self._num_bytes -= sum(moving.bytes.values())

    def _show(self) -> None:
        self._meters.set("vidray_on_the_way_bytes", self._num_bytes)
        for stage in WAITED_FOR:
            self._meters.set("vidray_queue", self._queued[stage], stage=stage)


def follow_disks(meters: Meters, places: Mapping[str, Path]) -> None:
    """Free and whole size of the file systems under these folders, whenever somebody looks."""
    for place, folder in places.items():
        meters.follow("vidray_disk_free_bytes", partial(_free_bytes, folder), place=place)
        meters.follow("vidray_disk_size_bytes", partial(_size_bytes, folder), place=place)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(_made(folder)).free


def _size_bytes(folder: Path) -> int:
    return shutil.disk_usage(_made(folder)).total


def _made(folder: Path) -> Path:
    """It, or the nearest above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
