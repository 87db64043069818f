"""`vidray analyze`: a few clips through one model, shown as they go."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from jobs.console import console_of
from jobs.display import Display, make_display
from jobs.draw import draw_boxes
from jobs.exits import run_until_stopped
from jobs.models import model_folder
from jobs.places import written_to
from jobs.progress import ProgressOptions, said
from jobs.results import exit_code, show
from jobs.rows_file import WRITERS, write_rows
from jobs.serving import ServingOptions
from jobs.sight.exporter import exported
from jobs.sight.job_sight import JobMeters
from jobs.sight.spans import VideoSpans, video_spans
from jobs.trace import Trace
from jobs.workplace import Analyse, Recipe, Workplace, require_doable
from pipeline.config import Sampling
from pipeline.errors import ConfigError
from pipeline.events import Listener, each
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.store.items import Item
from pipeline.store.open import S3_SCHEME
from pipeline.store.sources import is_link
from pipeline.tasks.options import TaskOptions
from pipeline.tasks.records import Record, to_json
from pipeline.tasks.resolve import make_plan_options, make_sampling, make_tasks
from pipeline.tasks.tasks import Tasks
from pipeline.video.source import Source


@dataclass(frozen=True, kw_only=True)
class AnalyzeCommand:
    """The command line, as typed. out: files for rows, and a folder for boxes drawn on frames."""

    tasks: TaskOptions
    serving: ServingOptions
    clips: tuple[Path, ...]
    progress: ProgressOptions = ProgressOptions()
    out: tuple[Path, ...] = ()
    json: bool = False
    trace: Path | None = None

    def __post_init__(self) -> None:
        folders = [path for path in self.out if path not in self.row_files]
        if folders and not self.tasks.ground:
            rows = ", ".join(WRITERS)
            raise ConfigError(
                f"--out {folders[0]} needs --ground: boxes are drawn there; rows go to {rows}"
            )
        if len(folders) > 1:
            raise ConfigError(f"--out names two folders for boxes, {folders[0]} and {folders[1]}")

    @property
    def row_files(self) -> tuple[Path, ...]:
        """Where rows go."""
        return tuple(path for path in self.out if path.suffix.lower() in WRITERS)

    @property
    def drawings(self) -> Path | None:
        """Where frames with boxes on them go."""
        return next((path for path in self.out if path not in self.row_files), None)

    def video_id(self, clip: Path) -> str:
        """As a job over the same clip with the same questions names it."""
        item = Item(
            uri=os.path.abspath(clip),
            questions=self.tasks.ask,
            ground=self.tasks.ground,
            start_s=self.tasks.start,
            end_s=self.tasks.end,
        )
        return item.video_id

    def require_good(self) -> None:
        """ConfigError for what no model and no clip could make right."""
        make_tasks(self.tasks, Sampling())
        make_plan_options(self.tasks)
        for clip in self.clips:
            place = str(clip) if clip.exists() else str(clip).replace(":/", "://", 1)
            if is_link(place):
                raise ConfigError(f"{place} is no file of this machine; fetch it first")
            if clip.is_dir() or place.startswith(S3_SCHEME):
                raise ConfigError(
                    f"{place} is {'a folder' if clip.is_dir() else 'in S3'}: for a row of every "
                    f"video in it, vidray batch run {shlex.quote(place)} OUT --model DIR"
                )
        with _refused_as("--out", self.drawings):
            if self.drawings is not None:
                self.drawings.mkdir(parents=True, exist_ok=True)
        for flag, file in [*(("--out", path) for path in self.row_files), ("--trace", self.trace)]:
            with _refused_as(flag, file):
                if file is not None:
                    file.open("ab").close()


@contextmanager
def _refused_as(flag: str, path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror}") from error


def run(settings: AnalyzeCommand) -> int:
    """Analyse every clip; returns the exit code. ConfigError before any clip is touched."""
    with said(settings.progress) as progress:
        return _run(settings, progress)


def _run(settings: AnalyzeCommand, progress: Console) -> int:
    settings.require_good()  # before a large model is loaded
    serving = settings.serving
    folder = model_folder(serving.model)
    sampling = make_sampling(settings.tasks, load_generation(folder).sampling)
    tasks = make_tasks(settings.tasks, sampling)
    recipe = Recipe(
        checkpoint=folder,
        options=make_plan_options(settings.tasks),
        reader=serving.reader,
        int8=serving.int8,
        max_new_tokens=sampling.max_new_tokens,
        limits=serving.limits,
    )
    workplace = Workplace.of(serving)
    require_doable(tasks, workplace.task_check(recipe))
    trace = Trace()
    records: list[Record] = []
    seen = JobMeters()
    seen.follow_job(num_planned=len(settings.clips), num_done=lambda: len(records))
    try:
        with (
            video_spans(settings.progress.otel) as spans,
            exported(seen.meters, settings.progress.metrics, progress),
            workplace.opened(recipe, progress) as analyse,
            make_display(progress, says_why=settings.json) as display,
        ):
            watching = _Watching(display, trace, seen, spans)
            run_until_stopped(_analyse_all(settings, tasks, analyse, watching, records))
        if not settings.json:  # before files, which may not be written
            show(records, console_of())
    finally:  # a run that was stopped may be the one to look at
        if settings.trace is not None:
            with written_to(settings.trace):
                trace.write(settings.trace)
        for file in settings.row_files:
            write_rows(records, file)
    return exit_code(records)


@dataclass(frozen=True, slots=True)
class _Watching:
    """Everybody who is told of what happens."""

    display: Display
    trace: Trace
    meters: JobMeters
    spans: VideoSpans

    def listener(self, video: str) -> Listener:
        return each(
            self.display.hear,
            self.trace.listener(video),
            partial(self.meters.hear, video),
            self.spans.listener(video),
        )

    def end(self, video: str, record: Record) -> None:
        self.meters.row(record)
        self.spans.end_row(video, record)
        self.display.end(record)


async def _analyse_all(
    settings: AnalyzeCommand,
    tasks: Tasks,
    analyse: Analyse,
    watching: _Watching,
    records: list[Record],
) -> None:
    """Adds the records to the list as they are made."""
    display = watching.display
    for number, clip in enumerate(settings.clips, start=1):
        display.begin(f"[{number}/{len(settings.clips)}] {clip.name}")
        source = Source.of(clip)
        name = f"[{number}] {clip.name}"
        with watching.meters.working_on(name):
            record = await analyse(
                source,
                tasks,
                video_id=settings.video_id(clip),
                listener=watching.listener(name),
            )
            watching.end(name, record)
        records.append(record)
        if settings.json:
            print(to_json(record), flush=True)
        if settings.drawings is not None:
            files = list(draw_boxes(source, record, folder=settings.drawings, number=number))
            for file in files:
                display.note(f"boxes drawn on {file}")
            if not files and record.code is None:
                display.note(f"nothing found in {clip.name}, nothing drawn in {settings.drawings}")
