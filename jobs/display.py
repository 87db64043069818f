"""What `vidray analyze` shows while it works: moving bars and words, or a line per event."""

import logging
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.gauges import Gauges
from jobs.printable import printable
from jobs.status_line import fitted
from pipeline.events import Event, Moved, Planned, Words
from pipeline.span import Stage
from pipeline.tasks.records import Record
from pipeline.tasks.requests import Request

_log = logging.getLogger("vidray.progress")
STAGES: tuple[Stage, ...] = ("read", "encode", "prefill")
MAX_LINES = 8  # of words being written
BAR_WIDTH = 12  # at most


class Display(Protocol):
    """Shows one clip after the other."""

    def begin(self, title: str) -> None: ...

    def hear(self, event: Event) -> None:
        """From any thread."""

    def end(self, record: Record) -> None: ...

    def note(self, text: str) -> None: ...

    def __enter__(self) -> "Display": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def make_display(console: Console, *, says_why: bool = True) -> Display:
    """says_why: of a clip that failed; not where its result, which says so too, comes after."""
    kind = LiveDisplay if console.is_terminal else PlainDisplay
    return kind(console, says_why=says_why)


class PlainDisplay:
    """A line when a clip is planned and one when it is done."""

    def __init__(self, console: Console, *, says_why: bool = True) -> None:
        self._console = console
        self._says_why = says_why
        self._title = ""

    def begin(self, title: str) -> None:
        self._title = printable(title)

    def hear(self, event: Event) -> None:
        _log_event(self._title, event)
        if isinstance(event, Planned):
            self._print(f"{self._title}: {_plan(event)}")

    def end(self, record: Record) -> None:
        _log.info("%s: %s", self._title, outcome(record))
        self._print(f"{self._title}: {outcome(record, says_why=self._says_why)}")

    def note(self, text: str) -> None:
        _log.info("%s", text)
        self._print(text)

    def _print(self, text: str) -> None:
        print(printable(text), file=self._console.file, flush=True)

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held."""


class LiveDisplay:
    """Bars for the stages, how fast they are, and the words as they are written.

    Redrawn a few times a second.
    """

    def __init__(self, console: Console, *, says_why: bool = True) -> None:
        self._console = console
        self._says_why = says_why
        self._gauges = Gauges()
        self._clear("")
        self._live: Live | None = None

    def begin(self, title: str) -> None:
        self._clear(printable(title))
        # A new one each time: it remembers how many lines above the cursor are its own.
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            transient=True,
            redirect_stdout=False,  # results belong to stdout even now
            redirect_stderr=False,
        )
        self._live.start()

    def hear(self, event: Event) -> None:
        self._gauges.hear(self._title, event)
        _log_event(self._title, event)
        if isinstance(event, Planned):
            self._clear(self._title)  # a video that lost something on the way starts anew
            self._plan, self._num_steps = _plan(event), event.num_steps
        elif isinstance(event, Moved):
            self._done[event.stage] += event.num_steps
        elif isinstance(event, Words):
            self._words[event.request] = self._words.get(event.request, "") + event.text

    def end(self, record: Record) -> None:
        style = "green" if record.status == "ok" and not record.result_codes else "red"
        _log.info("%s: %s", self._title, outcome(record))
        said = outcome(record, says_why=self._says_why)
        line = Text.assemble(self._title, "  ", (said, style))
        self._gauges.done(self._title)
        self._stop()
        self._console.print(line)

    def note(self, text: str) -> None:
        _log.info("%s", text)
        self._console.print(Text(printable(text)))

    def __enter__(self) -> "LiveDisplay":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _clear(self, title: str) -> None:
        self._title = title
        self._plan = ""
        self._num_steps = 0
        self._done: dict[Stage, int] = dict.fromkeys(STAGES, 0)
        self._words: dict[Request, str] = {}

    def _render(self) -> RenderableType:
        lines = [self._line(request, text) for request, text in list(self._words.items())]
        title = Text.assemble((self._title, "bold"), f"  {self._plan or 'opening'}")
        if not self._plan:
            return title
        rates = Text(fitted(self._gauges.cells(), width=self._console.width), style="dim")
        return Group(title, self._bars(), rates, *lines[-MAX_LINES:])

    def _bars(self) -> Table:
        bars = Table.grid(padding=(0, 1))
        counts = {stage: f"{self._done[stage]}/{self._num_steps}" for stage in STAGES}
        num_letters = sum(len(stage) + len(count) for stage, count in counts.items())
        room = (self._console.width - num_letters) // len(
            STAGES
        ) - 3  # three cells, one padding each
        cells: list[RenderableType] = []
        for stage, count in counts.items():
            total, done = max(self._num_steps, 1), self._done[stage]
            bar = ProgressBar(total=total, completed=done, width=max(1, min(BAR_WIDTH, room)))
            cells += [Text(stage), bar, Text(count, style="dim")]
        bars.add_row(*cells)
        return bars

    def _line(self, request: Request, text: str) -> Text:
        """The end of the text, as much of it as fits one line."""
        name = printable(request.subject or "caption")[:24]
        room = max(self._console.width - len(name) - 4, 8)
        words = printable(text)
        tail = words if len(words) <= room else f"\N{HORIZONTAL ELLIPSIS}{words[1 - room :]}"
        return Text.assemble("  ", (name, "dim"), " ", tail, no_wrap=True, overflow="crop")


def _log_event(title: str, event: Event) -> None:
    if isinstance(event, Planned):
        _log.info("%s: %s", title, _plan(event))
    elif isinstance(event, Moved):
        _log.debug(
            "%s: %s chunk %d of window %d, %.3f s on %s",
            *(title, event.stage, event.chunk_index, event.window_index),
            *(event.span.duration_s, event.span.process.name),
        )


def _plan(planned: Planned) -> str:
    media, plan = planned.media, planned.plan
    size = plan.windows[0].grid.size
    span = "picture" if media.is_still else f"{media.duration_s:.1f} s"
    windows = f" in {len(plan.windows)} windows" if len(plan.windows) > 1 else ""
    return (
        f"{media.width}x{media.height}, {span}: {plan.num_frames} frames of "
        f"{size.width}x{size.height}, {plan.num_tokens} tokens{windows}"
    )


def outcome(record: Record, *, says_why: bool = True) -> str:
    """In a few words; says_why: of a failure."""
    if record.status == "failed":
        return f"{record.code}: {record.detail}" if says_why else "failed"
    first_word_s = record.timings.first_word_s
    first = "" if first_word_s is None else f", first word after {first_word_s:.1f} s"
    flags = f" ({', '.join(record.flags)})" if record.flags else ""
    num_failed = len(record.result_codes)
    failed = f", {num_failed} of its answers or boxes failed" if num_failed else ""
    return f"done in {record.timings.total_s:.1f} s{first}{failed}{flags}"
