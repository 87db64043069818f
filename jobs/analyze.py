"""`vidray analyze`: a few clips through one model, shown as they go."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from jobs.display import Display, make_display
from jobs.draw import draw_boxes
from jobs.exits import Exit
from jobs.models import DEMO_MODEL, find_model
from jobs.results import show
from jobs.serving import ServingOptions
from jobs.trace import Trace
from jobs.workplace import Analyse, Recipe, Workplace
from pipeline.config import Sampling
from pipeline.errors import ConfigError
from pipeline.events import each
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.store.items import Item
from pipeline.tasks.options import TaskOptions
from pipeline.tasks.records import Record, to_json
from pipeline.tasks.resolve import make_plan_options, make_sampling, make_tasks
from pipeline.tasks.tasks import Tasks
from pipeline.video.source import Source

DEMO_NOTICE = "vidray-demo knows coloured shapes; pass --model for Qwen2-VL"


@dataclass(frozen=True, kw_only=True)
class AnalyzeCommand:
    """The command line, as typed. out: where frames with boxes on them go."""

    tasks: TaskOptions
    serving: ServingOptions
    clips: tuple[Path, ...]
    out: Path | None = None
    json: bool = False
    trace: Path | None = None

    def __post_init__(self) -> None:
        if self.out is not None and not self.tasks.ground:
            raise ConfigError("--out needs --ground")

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
        if self.out is not None:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"--out {self.out}: {error.strerror}") from error
        if self.trace is not None:
            try:
                self.trace.open("ab").close()
            except OSError as error:
                raise ConfigError(f"--trace {self.trace}: {error.strerror}") from error


def run(settings: AnalyzeCommand) -> int:
    """Analyse every clip; returns the exit code. ConfigError before any clip is touched."""
    settings.require_good()  # before a large model is loaded
    serving = settings.serving
    folder = model_folder(serving.model)
    progress = Console(stderr=True, highlight=False)
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
    trace = Trace()
    try:
        with (
            Workplace.of(serving).opened(recipe, progress) as analyse,
            make_display(progress) as display,
        ):
            records = asyncio.run(_analyse_all(settings, tasks, analyse, display, trace))
    finally:  # a run that was stopped may be the one to look at
        if settings.trace is not None:
            trace.write(settings.trace)
    if not settings.json:
        show(records, Console(highlight=False))
    is_good = all(record.status == "ok" for record in records)
    return Exit.OK if is_good else Exit.SOME_FAILED


async def _analyse_all(
    settings: AnalyzeCommand, tasks: Tasks, analyse: Analyse, display: Display, trace: Trace
) -> list[Record]:
    records = []
    for number, clip in enumerate(settings.clips, start=1):
        display.begin(f"[{number}/{len(settings.clips)}] {clip.name}")
        source = Source.of(clip)
        record = await analyse(
            source,
            tasks,
            video_id=settings.video_id(clip),
            listener=each(display.hear, trace.listener(f"[{number}] {clip.name}")),
        )
        display.end(record)
        records.append(record)
        if settings.json:
            print(to_json(record), flush=True)
        if settings.out is not None:
            for file in draw_boxes(source, record, folder=settings.out, number=number):
                display.note(f"boxes drawn on {file}")
    return records


def model_folder(named: Path | None) -> Path:
    """Of the model: the folder that was named; vidray-demo by its name, or where nothing was."""
    return demo_model() if named is None else find_model(named)


def demo_model() -> Path:
    if not DEMO_MODEL.is_dir():
        raise ConfigError("--model is missing: a folder with a Qwen2-VL checkpoint")
    print(DEMO_NOTICE, file=sys.stderr)
    return DEMO_MODEL
