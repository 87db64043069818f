"""Watching a job: one line that moves on a terminal, plain lines elsewhere."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from jobs.batch.event_log import Events
from jobs.display import outcome
from jobs.printable import printable
from jobs.sight.job_sight import seconds_of
from jobs.status_line import fitted
from pipeline.store.commit import Receipt
from pipeline.store.job_plan import JobPlan
from pipeline.store.passed_over import describe_passed_over
from pipeline.store.rows import RowCounts
from pipeline.tasks.records import Record

LINE_EVERY_S = 10.0  # of plain lines

_log = logging.getLogger("vidray.progress")
Figures = Callable[[], Sequence[str]]


def no_figures() -> Sequence[str]:
    return ()


class Watch:
    """Counts what happens to a job's videos, shows and tells it; enter it while the job runs.

    figures: what the fleet says of itself, its bottleneck first; under the line on a terminal.
    """

    def __init__(
        self,
        console: Console,
        plan: JobPlan,
        before: RowCounts,
        *,
        events: Events,
        figures: Figures = no_figures,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._plan = plan
        self._before = before
        self._events = events
        self._figures = figures
        self._clock = clock
        self._started_s = self._shown_s = clock()
        self._began_s = self._started_s
        self._num_videos = 0  # of this run
        self._num_committed = before.num_rows
        self._num_found = 0  # of other drivers
        self.is_shared = False  # other drivers have made parts meanwhile
        self._video_s = 0.0
        self.codes: Counter[str] = Counter(before.codes)
        self.result_codes: Counter[str] = Counter(before.result_codes)
        self._note: Sequence[str] = ()
        self._live: Live | None = None

    def __enter__(self) -> "Watch":
        plan, before = self._plan, self._before
        self._events.tell(
            "started",
            videos=plan.num_items,
            parts=plan.num_parts,
            parts_before=before.num_parts,
            videos_before=before.num_rows,
            passed_over=dict(plan.passed_over),
        )
        again = f", {before.num_rows} of them done before" if before.num_rows else ""
        videos = "1 video" if plan.num_items == 1 else f"{plan.num_items} videos"
        parts = "1 part" if plan.num_parts == 1 else f"{plan.num_parts} parts"
        self._print(f"job {plan.job_id}: {videos} in {parts}{again}")
        if plan.passed_over:
            self._print(describe_passed_over(plan.passed_over))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
        seconds = round(self._clock() - self._started_s, 3)
        name = "finished" if error is None else "stopped"
        reason = {} if kind is None else {"error": kind.__name__}
        self._events.tell(
            name,
            videos=self._num_videos,
            failed=self.codes.total(),
            failed_results=self.result_codes.total(),
            seconds=seconds,
            **reason,
        )
        self._print(self.line())
        if error is not None:
            self._print(
                f"stopped: {self._num_committed} of {self._plan.num_items} rows are committed and "
                "stay; run the same command again to go on"
            )

    def begin(self, missing: Sequence[int]) -> None:
        """All is ready to work on videos: their speed counts from now, and the line is drawn.

        missing: parts. What is there and was not before, other drivers have made meanwhile.
        """
        self._began_s = self._clock()
        num_left = sum(map(self._plan.num_rows, missing))
        num_found = self._plan.num_items - num_left - self._before.num_rows
        if num_found > 0:
            self._find(num_found)
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def video(self, record: Record) -> None:
        """A video's row is made; it counts for good once its part is committed."""
        self._num_videos += 1
        self._video_s += seconds_of(record)
        if record.code is not None:
            self.codes[record.code] += 1
        self.result_codes.update(record.result_codes)
        self._events.tell(
            "video",
            video_id=record.video_id,
            uri=record.uri,
            status=record.status,
            code=record.code,
            failed_results=len(record.result_codes),
            video_s=round(seconds_of(record), 3),
            seconds=round(record.timings.total_s, 3),
        )
        _log.debug("%s: %s", record.uri, outcome(record))
        now_s = self._clock()
        if self._live is None and now_s - self._shown_s >= LINE_EVERY_S:
            self._shown_s = now_s
            self._print(self.line())

    def part(self, receipt: Receipt) -> None:
        """A part is in the store for good."""
        self._num_committed += self._plan.num_rows(receipt.index)
        self.is_shared |= not receipt.is_mine
        _log.debug("part %d of %d is committed", receipt.index + 1, self._plan.num_parts)
        self._events.tell(
            "part", part=receipt.index, is_mine=receipt.is_mine, sha256=receipt.sha256
        )

    def found(self, index: int) -> None:
        """A part that another driver has made since this one began."""
        self._find(self._plan.num_rows(index))
        self._events.tell("found", part=index)

    def _find(self, num_rows: int) -> None:
        self._num_committed += num_rows
        self._num_found += num_rows
        self.is_shared = True

    def stopping(self, grace_s: float) -> None:
        """Somebody asked the job to stop. grace_s: of parts under way."""
        self._events.tell("stopping", grace_s=grace_s)
        self._note = (
            f"stopping: parts under way get {grace_s:g} s",
            "stop again to end now",
            "no new part is begun",
        )
        if self._live is None:
            self._print("; ".join(self._note))

    def outage(self, what: str) -> None:
        """What is waited for; "" once it is over."""
        self._events.tell("waiting" if what else "going on")
        self._note = (f"waiting: {printable(what)}",) if what else ()
        if self._live is None:
            self._print(f"waiting: {what}" if what else "going on")

    def line(self) -> str:
        """How far the job is, in one line."""
        return ", ".join(self._cells())

    @property
    def num_done(self) -> int:
        """Videos with a row, those of earlier runs and of other drivers too."""
        return self._before.num_rows + self._num_found + self._num_videos

    def _cells(self) -> list[str]:
        """What the line says, in the order in which it may not give way to a narrow terminal."""
        done = self.num_done
        total = self._plan.num_items
        now_s = self._clock()
        busy_s = max(now_s - self._began_s, 1e-9)
        cells = [f"{done}/{total} videos", f"{self.codes.total()} failed"]
        if self._num_videos:
            if done < total:
                cells.append(f"{_span((total - done) * busy_s / self._num_videos)} left")
            cells.append(f"{self._video_s / busy_s:.1f} video-seconds/s")
        cells += [f"{done / total:.0%}", f"{_span(now_s - self._started_s)} passed"]
        if self.result_codes:
            num_failed = self.result_codes.total()
            kinds = "answer or box" if num_failed == 1 else "answers or boxes"
            cells.append(f"{num_failed} {kinds} failed")
        return cells

    def _render(self) -> Text:
        width = self._console.width
        lines = (
            fitted(self._cells(), width=width),
            fitted(self._figures(), width=width),
            fitted(self._note, width=width, between="; "),
        )
        return Text("\n".join(filter(None, lines)), no_wrap=True, overflow="ellipsis")

    def say(self, line: str) -> None:
        """A line of its own, in the log too."""
        self._print(line)

    def _print(self, line: str) -> None:
        _log.info("%s", line)
        print(printable(line), file=self._console.file, flush=True)


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def describe_failures(codes: Mapping[str, int], result_codes: Mapping[str, int]) -> str:
    """As in "3 failed: 2 truncated, 1 not_found"; what failed within good videos after that."""
    failed = f"{sum(codes.values())} failed" + _which(codes)
    if not result_codes:
        return failed
    num_results = sum(result_codes.values())
    kinds = "caption, answer or box" if num_results == 1 else "captions, answers or boxes"
    inside = f"{num_results} {kinds} failed{_which(result_codes)}"
    return f"{failed}; of the others {inside}"


def _which(codes: Mapping[str, int]) -> str:
    most = sorted(codes.items(), key=lambda entry: (-entry[1], entry[0]))
    which = ", ".join(f"{count} {code}" for code, count in most)
    return f": {which}" if which else ""
