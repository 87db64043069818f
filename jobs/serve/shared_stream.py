"""An open video as clients see it: its plan, what has happened on it, the answers so far."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.fleet_session import FleetSession
from jobs.serve.left_stream import LeftStream, StreamEntry, StreamKey
from jobs.serve.media_facts import media_facts
from jobs.serve.rates import Rates
from jobs.serve.stream_log import StreamLog
from jobs.serve.uploads import Upload
from pipeline.events import Event, Moved
from pipeline.types import SamplingPlan

if TYPE_CHECKING:
    from jobs.serve.answer_run import AnswerRun

EVENTS = {"read": "decoded", "encode": "encoded", "prefill": "prefilled"}


class SharedStream:
    """One video, opened and planned. left: what an earlier desk, or this one, had of it before."""

    def __init__(
        self,
        session: FleetSession,
        upload: Upload,
        entry: StreamEntry,
        *,
        rates: Rates,
        hear: Callable[[str, Event], None],
        left: LeftStream | None = None,
    ) -> None:
        self.session = session
        self.upload = upload
        self.entry = entry
        self.log = StreamLog(left.events if left else ())
        self.answers: dict[str, AnswerRun] = {}  # that can be looked up, by id
        self.counters: Counter[str] = Counter(left.counters if left else {})
        self.used_at = time.time()
        self.num_running = 0
        self.answer_tokens = 0  # that those running may write
        self._rates = rates
        self._hear = hear  # is told of every event, and of our id
        self._first_frames = _first_frames(session.plan)
        if left is None:
            self.log.append("planned", {"plan": self.plan_body, "media": self.media_body})

    @property
    def id(self) -> str:
        return self.entry.stream_id

    @property
    def owner(self) -> str:
        return self.entry.owner

    @property
    def key(self) -> StreamKey:
        """Chats with the same one share the stream."""
        return self.entry.key

    @property
    def media_body(self) -> dict[str, Any]:
        return media_facts(self.session.media)

    @property
    def plan_body(self) -> dict[str, Any]:
        plan = self.session.plan
        size = plan.windows[0].grid.size
        return {
            "hash": plan.hash,
            "fps": plan.fps,
            "num_frames": plan.num_frames,
            "num_tokens": plan.num_tokens,
            "width": size.width,
            "height": size.height,
            "source_width": plan.source_width,
            "source_height": plan.source_height,
            "windows": [
                {
                    "index": window.index,
                    "start_s": window.start_s,
                    "end_s": window.end_s,
                    "first_frame": first,
                    "num_frames": window.num_frames,
                    "num_tokens": window.grid.num_tokens,
                }
                for window, first in zip(plan.windows, self._first_frames, strict=True)
            ],
            "times_s": self.times_s,
        }

    @property
    def times_s(self) -> list[float]:
        """Of every frame of the plan, as a player shows them."""
        offset_s = self.session.media.offset_s
        windows = self.session.plan.windows
        return [round(time_s + offset_s, 6) for window in windows for time_s in window.times_s]

    @property
    def counters_body(self) -> dict[str, int]:
        return {name: self.counters[name] for name in (*EVENTS.values(), "watched")}

    def hearing(self, hear: Callable[[Event], None]) -> Callable[[Event], None]:
        """A listener for the session: logs how the video moves, and passes everything on.

        On the event loop, whatever thread it is called from.
        """
        loop, home = asyncio.get_running_loop(), threading.get_ident()

        def take(event: Event) -> None:
            self._hear(self.id, event)
            if isinstance(event, Moved):
                self._moved(event)
            hear(event)

        def listener(event: Event) -> None:
            if threading.get_ident() == home:
                take(event)
            else:
                loop.call_soon_threadsafe(take, event)

        return listener

    def _moved(self, event: Moved) -> None:
        plan = self.session.plan
        self._rates.hear(event, plan)
        name = EVENTS[event.stage]
        window = plan.windows[event.window_index]
        if event.stage == "read" and event.window_index == event.chunk_index == 0:
            again = self.counters["watched"] > 0
            self.counters["watched"] += 1
            self.log.append("watching", {"num_frames": plan.num_frames, "again": again})
        chunk, temporal = window.chunks[event.chunk_index], window.grid.geometry.temporal
        start = self._first_frames[event.window_index] + chunk.start * temporal
        frames = list(range(start, start + chunk.num_steps * temporal))
        self.counters[name] += len(frames)
        times_s = self.times_s
        self.log.append(
            name,
            {
                "frames": frames,
                "times_s": [times_s[frame] for frame in frames],
                "damaged": [
                    frame for frame, is_bad in zip(frames, event.is_damaged, strict=False) if is_bad
                ],
                "counters": self.counters_body,
            },
        )


def _first_frames(plan: SamplingPlan) -> list[int]:
    """The index of each window's first frame, over all windows."""
    firsts, count = [], 0
    for window in plan.windows:
        firsts.append(count)
        count += window.num_frames
    return firsts
