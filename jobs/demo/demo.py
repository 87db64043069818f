"""`vidray demo`: a small archive, the main job on it, and what came out next to the truth."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from jobs.demo.demo_archive import UNSEEN_SEED, ClipTruth, make_archive, tasks_of
from jobs.demo.demo_table import Marked, make_table
from jobs.display import make_display
from jobs.exits import run_until_stopped
from jobs.models import DEMO_MODEL, DEMO_NOTICE, find_model
from jobs.report.page import write_report
from jobs.report.strips import Strips
from jobs.results import exit_code
from jobs.serving import ServingOptions
from jobs.workplace import Analyse, Recipe, Workplace
from pipeline.config import Sampling
from pipeline.errors import VidrayError
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.tasks.records import Record, to_table
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source

SEED = UNSEEN_SEED + 2  # clips that neither training nor the scores have seen
Clip = tuple[Path, ClipTruth]


def run_demo(
    progress: Console,
    *,
    console: Console,
    folder: Path,
    serving: ServingOptions,
    num_clips: int = 12,
) -> int:
    """Make clips, analyse them, print them next to the truth, write rows and page.

    Returns the exit code. VidrayError where there is no model.
    """
    started = time.monotonic()
    checkpoint = find_model(serving.model or DEMO_MODEL)
    if not checkpoint.is_dir():
        raise VidrayError(f"there is no model in {checkpoint}")
    if serving.model is None:
        console.print(DEMO_NOTICE, soft_wrap=True)
    with progress.status("making clips"):
        clips = make_archive(folder / "clips", num_clips, SEED)
    sampling = load_generation(checkpoint).sampling
    recipe = Recipe(
        checkpoint=checkpoint,
        options=PlanOptions(),
        reader=serving.reader,
        int8=serving.int8,
        limits=serving.limits,
    )
    with Workplace.of(serving).opened(recipe, progress) as analyse:
        records = run_until_stopped(_analyse_all(analyse, clips, sampling, progress))
    marked = [Marked.of(truth, r) for (_, truth), r in zip(clips, records, strict=True)]
    console.print(make_table(marked))
    rows, page = _write(records, folder)
    seconds = time.monotonic() - started
    print(_farewell(clips, rows=rows, page=page, seconds=seconds), file=console.file)
    return exit_code(records)


async def _analyse_all(
    analyse: Analyse, clips: Sequence[Clip], sampling: Sampling, progress: Console
) -> list[Record]:
    """As `vidray analyze` does it, with each clip's own questions."""
    records = []
    with make_display(progress) as display:
        for number, (path, truth) in enumerate(clips, start=1):
            display.begin(f"[{number}/{len(clips)}] {path.name}")
            tasks = replace(tasks_of(truth), sampling=sampling)
            source = Source.of(path)
            record = await analyse(source, tasks, video_id=truth.file, listener=display.hear)
            display.end(record)
            records.append(record)
    return records


def _write(records: Sequence[Record], folder: Path) -> tuple[Path, Path]:
    rows, page = folder / "videos.parquet", folder / "report.html"
    pq.write_table(to_table(records), rows)
    write_report(records, page, read_stills=Strips().read, title="vidray demo")
    return rows, page


def _farewell(clips: Sequence[Clip], *, rows: Path, page: Path, seconds: float) -> str:
    path, truth = clips[0]
    return f"""{len(clips)} clips in {seconds:.0f} s, from drawing them to this line.
  rows  {rows}
  page  {page} (opens in any browser)
Try next:
  vidray analyze {path} --ask "{truth.questions[0].text}" --ground "{truth.boxes[0].query}"
  vidray analyze YOUR.mp4 --model PATH/TO/Qwen2-VL-2B-Instruct --ask "What happens?"
"""
