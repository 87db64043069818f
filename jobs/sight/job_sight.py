"""A job in numbers: its videos at work, its rows, its parts, and what holds it up."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from jobs.sight.meters import Meters
from jobs.sight.work import WorkMeters
from pipeline.about import about
from pipeline.errors import Blame
from pipeline.store.objects import ObjectStore
from pipeline.store.watched import Outcome, Verb, WatchedStore
from pipeline.tasks.records import Record


class JobMeters:
    """Of `batch run` or `analyze`."""

    def __init__(self) -> None:
        self.meters = Meters("job")
        self._work = WorkMeters(self.meters)
        self._num_running = 0
        self.hear = self._work.hear
        self.meters.follow("vidray_running", lambda: self._num_running)

    @contextmanager
    def working_on(self, video: str) -> Iterator[None]:
        """While entered, the video is being worked on, or waits for a store or a fleet."""
        self._num_running += 1
        try:
            with about(video=video):
                yield
        finally:
            self._num_running -= 1
            self._work.done(video)

    def row(self, record: Record) -> None:
        """A video's row is made."""
        meters = self.meters
        meters.add("vidray_videos", status=record.status)
        meters.add("vidray_video_seconds", seconds_of(record))
        if record.code is not None:
            meters.add("vidray_failures", code=record.code)
        for code in record.result_codes:
            meters.add("vidray_result_failures", code=code)
        if (first_word_s := record.timings.first_word_s) is not None:
            meters.observe("vidray_first_word_seconds", first_word_s)

    def part(self) -> None:
        """A part is committed."""
        self.meters.add("vidray_parts")

    def watched(self, store: ObjectStore) -> ObjectStore:
        """The store, whose calls are counted."""

        def told(verb: Verb, outcome: Outcome, took_s: float, num_bytes: int) -> None:
            self.meters.add("vidray_store_calls", verb=verb, outcome=outcome)
            self.meters.add("vidray_store_seconds", took_s, verb=verb)
            if num_bytes:
                self.meters.add("vidray_store_bytes", num_bytes, verb=verb)

        return WatchedStore(store, told)

    def follow_job(self, *, num_planned: int, num_done: Callable[[], int]) -> None:
        """How many videos it has, and how many of them have a row."""
        self.meters.set("vidray_planned_videos", num_planned)
        self.meters.follow("vidray_done_videos", num_done)

    def follow_breakers(self, down: Callable[[], Blame | None]) -> None:
        """down: who fails everybody, if somebody does."""
        for blame in (Blame.STORE, Blame.FLEET):
            self.meters.follow("vidray_breaker_open", partial(_is_down, down, blame), blame=blame)


def _is_down(down: Callable[[], Blame | None], blame: Blame) -> float:
    return float(down() is blame)


def seconds_of(record: Record) -> float:
    """Of video that the row is about; 0 for one that failed, or a picture."""
    if record.plan is None or record.status == "failed":
        return 0.0
    windows = record.plan.windows
    return windows[-1].end_s - windows[0].start_s
