"""`vidray analyze`: a few clips through one model, shown as they go."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from jobs.display import Display, make_display
from jobs.draw import draw_boxes
from jobs.exits import Exit
from jobs.results import show
from jobs.wish import Wish, require
from pipeline.analyse import analyse
from pipeline.config import EngineLimits, Sampling
from pipeline.errors import ConfigError
from pipeline.local import LocalFlow, LocalModel
from pipeline.store.items import Item
from pipeline.tasks.records import Record, to_json
from pipeline.tasks.tasks import Tasks
from pipeline.video.budget import MAX_WINDOW_TOKENS
from pipeline.video.source import Source

DEMO_MODEL = Path(__file__).parents[1] / "models" / "vidray-demo"
DEMO_NOTICE = "vidray-demo knows coloured shapes; pass --model for Qwen2-VL"


@dataclass(frozen=True, kw_only=True)
class Settings(Wish):
    """The command line, as typed."""

    clips: tuple[Path, ...]
    model: Path | None
    out: Path | None
    json: bool
    int8: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        require({"--out needs --ground": bool(self.queries) or self.out is None})

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
        self.tasks(self.sampling(Sampling()))
        _ = self.options
        if self.out is not None:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"--out {self.out}: {error.strerror}") from error


def run(settings: Settings) -> int:
    """Analyse every clip; returns the exit code. ConfigError before any clip is touched."""
    settings.require_good()  # before a large model is loaded
    folder = settings.model or demo_model()
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


def demo_model() -> Path:
    if not DEMO_MODEL.is_dir():
        raise ConfigError("--model is missing: a folder with a Qwen2-VL checkpoint")
    print(DEMO_NOTICE, file=sys.stderr)
    return DEMO_MODEL
