"""vidray soak chaos and vidray soak memory; they stand beside vidray soak kills."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
Folder = Annotated[Path, typer.Argument(help="For the clips.")]
Model = Annotated[
    Path | None, typer.Option(help="A Qwen2-VL folder; the bundled vidray-demo if not given.")
]
Seed = Annotated[int, typer.Option(help="Of the injuries, their moments and the clips.")]


@app.command()
def chaos(
    folder: Folder,
    model: Model = None,
    kills: Annotated[int, typer.Option(min=1, help="Injuries.")] = 50,
    videos: Annotated[int, typer.Option(min=2, help="In each round; one of them is bad.")] = 8,
    seed: Seed = 0,
    stall: Annotated[float, typer.Option(help="Seconds of silence that mean death.")] = 15.0,
) -> int:
    """Kill, stop and starve a fleet at random; every record must be there once, and the same."""
    from jobs.soak.chaos import run_chaos  # noqa: PLC0415 - torch and Ray take seconds to import

    return run_chaos(
        folder, model=model, num_injuries=kills, num_videos=videos, seed=seed, stall_s=stall
    )


@app.command()
def memory(
    folder: Folder,
    model: Model = None,
    clips: Annotated[int, typer.Option(min=2, help="To analyse.")] = 1_000,
    early: Annotated[int, typer.Option(min=1, help="Clips after which memory must be flat.")] = 100,
    seed: Seed = 0,
) -> int:
    """Analyse many clips; no process may need more memory at the end than after the first ones."""
    from jobs.soak.memory import run_memory  # noqa: PLC0415 - likewise

    return run_memory(folder, model=model, num_clips=clips, num_early=early, seed=seed)
