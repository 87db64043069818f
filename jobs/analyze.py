"""`vidray analyze`: a few clips through one model, shown as they go."""

import asyncio
import math
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from jobs.display import Display, make_display
from jobs.draw import draw_boxes
from jobs.exits import Exit
from jobs.results import show
from pipeline.analyse import analyse
from pipeline.config import EngineLimits, Sampling
from pipeline.errors import BadInput, ConfigError
from pipeline.local import LocalFlow, LocalModel
from pipeline.model.constraint import Choices, Constraint, JsonSchema
from pipeline.store.items import Item
from pipeline.tasks.records import Record, to_json
from pipeline.tasks.tasks import Ask, Ground, Tasks
from pipeline.video.budget import MAX_WINDOW_TOKENS
from pipeline.video.options import PlanOptions
from pipeline.video.reader import Reader
from pipeline.video.source import Source

DEMO_MODEL = Path(__file__).parents[1] / "models" / "vidray-demo"
DEMO_NOTICE = "vidray-demo knows coloured shapes; pass --model for Qwen2-VL"
MAX_SCHEMA_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The command line, as typed."""

    clips: tuple[Path, ...]
    model: Path | None
    caption: bool
    questions: tuple[str, ...]
    choices: str | None
    schema: Path | None
    queries: tuple[str, ...]
    times_s: tuple[float, ...]
    out: Path | None
    json: bool
    fps: float
    preset: str
    long: Literal["fit", "windows"]
    overlap_s: float
    start_s: float | None
    end_s: float | None
    max_new_tokens: int
    temperature: float | None
    seed: int
    reader: Reader
    int8: bool

    def __post_init__(self) -> None:
        rules = {
            "--at needs --ground": bool(self.queries) or not self.times_s,
            "--choices and --schema need --ask": bool(self.questions)
            or not (self.choices or self.schema),
            "--choices and --schema exclude each other": not (self.choices and self.schema),
            "--out needs --ground": bool(self.queries) or self.out is None,
            "nothing to do: --no-caption needs --ask or --ground": self.caption
            or bool(self.questions or self.queries),
            "--start must be 0 or more and before --end": 0.0
            <= (self.start_s or 0.0)
            < (math.inf if self.end_s is None else self.end_s),
        }
        for rule, holds in rules.items():
            if not holds:
                raise ConfigError(rule)

    @property
    def options(self) -> PlanOptions:
        return PlanOptions(
            preset=self.preset,
            fps=self.fps,
            long=self.long,
            overlap_s=self.overlap_s,
            start_s=self.start_s,
            end_s=self.end_s,
        )

    def sampling(self, own: Sampling) -> Sampling:
        """The checkpoint's own way to sample, unless a temperature was asked for."""
        chosen = replace(own, max_new_tokens=self.max_new_tokens, seed=self.seed)
        if self.temperature is None:
            return chosen
        return replace(chosen, temperature=self.temperature, top_k=0, top_p=1.0)

    def video_id(self, clip: Path) -> str:
        """As a job over the same clip with the same questions names it."""
        item = Item(
            uri=os.path.abspath(clip),
            questions=self.questions,
            ground=self.queries,
            start_s=self.start_s,
            end_s=self.end_s,
        )
        return item.video_id

    def require_good(self) -> None:
        """ConfigError for what no model and no clip could make right."""
        try:
            self.tasks(self.sampling(Sampling()))
            _ = self.options
            if self.out is not None:
                self.out.mkdir(parents=True, exist_ok=True)
        except BadInput as error:
            raise ConfigError(error.detail) from error
        except OSError as error:
            raise ConfigError(f"--out {self.out}: {error.strerror}") from error

    def tasks(self, sampling: Sampling) -> Tasks:
        constraint = self._constraint()
        return Tasks(
            caption="" if self.caption else None,
            asks=tuple(Ask(question=text, constraint=constraint) for text in self.questions),
            grounds=tuple(Ground(query=text, times_s=self.times_s) for text in self.queries),
            sampling=sampling,
        )

    def _constraint(self) -> Constraint | None:
        if self.choices:
            return Choices(tuple(choice.strip() for choice in self.choices.split(",")))
        if self.schema:
            return JsonSchema(_read_schema(self.schema))
        return None


def run(settings: Settings) -> int:
    """Analyse every clip; returns the exit code. ConfigError before any clip is touched."""
    settings.require_good()  # before a large model is loaded
    folder = settings.model or _demo_model()
    progress = Console(stderr=True, highlight=False)
    with progress.status("loading the model"):
        model = _load(folder, settings)
    tasks = settings.tasks(settings.sampling(model.sampling))
    flow = LocalFlow(model, options=settings.options, reader=settings.reader)
    try:
        with make_display(progress) as display:
            records = asyncio.run(_analyse_all(settings, tasks, flow, display))
    finally:
        flow.close()
    if not settings.json:
        show(records, Console(highlight=False))
    is_good = all(record.status == "ok" for record in records)
    return Exit.OK if is_good else Exit.SOME_FAILED


async def _analyse_all(
    settings: Settings, tasks: Tasks, flow: LocalFlow, display: Display
) -> list[Record]:
    records = []
    for number, clip in enumerate(settings.clips, start=1):
        display.begin(f"[{number}/{len(settings.clips)}] {clip.name}")
        source = Source.of(clip)
        record = await analyse(
            source, tasks, flow, video_id=settings.video_id(clip), listener=display.hear
        )
        display.end(record)
        records.append(record)
        if settings.json:
            print(to_json(record), flush=True)
        if settings.out is not None:
            for file in draw_boxes(source, record, folder=settings.out, number=number):
                display.note(f"boxes drawn on {file}")
    return records


def _load(folder: Path, settings: Settings) -> LocalModel:
    # Room for four answers at a time, as far as a full window of video leaves any.
    default = EngineLimits()
    most = default.max_tokens - MAX_WINDOW_TOKENS - default.question_tokens
    wanted = max(default.question_tokens, 4 * settings.max_new_tokens)
    limits = EngineLimits(question_tokens=min(wanted, most))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return LocalModel.load(folder, limits=limits, device=device, int8=settings.int8)


def _demo_model() -> Path:
    if not DEMO_MODEL.is_dir():
        raise ConfigError("--model is missing: a folder with a Qwen2-VL checkpoint")
    print(DEMO_NOTICE, file=sys.stderr)
    return DEMO_MODEL


def _read_schema(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SCHEMA_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--schema {path} cannot be read: {error}") from error
