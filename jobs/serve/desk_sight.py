"""What the endpoint shows of itself: its metrics, the operator's view, a trace of what is done on a
stream.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.serve.answer_run import AnswerRun
from jobs.serve.shared_stream import SharedStream
from jobs.sight.meters import Meters
from jobs.sight.operator_view import Lookback, body
from jobs.sight.samples import MetricSamples
from jobs.sight.spans import VideoSpans
from jobs.sight.work import WorkMeters, follow_disks
from pipeline.events import Event


class DeskSight:
    """Hears of all streams of one desk. num_running, num_open: of its answers and streams, now."""

    def __init__(
        self,
        *,
        num_running: Callable[[], int],
        num_open: Callable[[], int],
        folder: Path,
        spans: VideoSpans,
    ) -> None:
        self.meters = Meters("endpoint")
        self.meters.follow("vidray_running", num_running)
        self.meters.follow("vidray_open_streams", num_open)
        follow_disks(self.meters, {"uploads": folder})
        self._work = WorkMeters(self.meters)
        self._spans = spans
        self._lookback = Lookback(self._samples())

    @property
    def body(self) -> dict[str, Any]:
        """The operator's view, as JSON, since it was last looked at."""
        return body(*self._lookback.look(self._samples()))

    def hear(self, stream_id: str, event: Event) -> None:
        """What happens on a stream."""
        self._work.hear(stream_id, event)
        self._spans.listener(stream_id)(event)

    def ended(self, answering: AnswerRun) -> None:
        """An answer has, or is paused."""
        code = None if answering.refusal is None else answering.refusal.code
        self.meters.add("vidray_answers", status=answering.status)
        if answering.status != "paused":  # or its times would count twice
            if answering.first_word_s is not None:
                self.meters.observe("vidray_first_word_seconds", answering.first_word_s)
            self.meters.observe("vidray_answer_seconds", answering.total_s or 0.0)
        self.rests(answering.stream, status=answering.status, code=code)

    def rests(self, stream: SharedStream, *, status: str, code: str | None) -> None:
        """Something on it has ended; a trace is what happens from one idle moment to the next."""
        if code is not None:
            self.meters.add("vidray_failures", code=code)
        if not stream.num_running:
            self._work.done(stream.id)  # of one that was stopped, chunks were on their way
            self._spans.end(stream.id, video_id=stream.id, status=status, code=code)

    def closed(self, stream: SharedStream) -> None:
        """Nothing of it is on its way any more."""
        self._work.done(stream.id)

    def _samples(self) -> MetricSamples:
        return MetricSamples.parse(self.meters.page().decode(), at_s=time.monotonic())
