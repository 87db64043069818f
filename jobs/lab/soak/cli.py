"""vidray soak: its trials and their options."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Long trials of what is promised.")
Folder = Annotated[Path, typer.Argument(help="For the clips.")]
Model = Annotated[
    Path | None, typer.Option(help="A Qwen2-VL folder; the bundled vidray-demo if not given.")
]
Seed = Annotated[int, typer.Option(help="Of the injuries, their moments and the clips.")]


@app.command()
def kills(
    folder: Annotated[Path, typer.Argument(help="For clips and jobs.")],
    model: Model = None,
    count: Annotated[int, typer.Option(min=1, help="Kills.")] = 50,
    videos: Annotated[int, typer.Option(min=2, help="In each job; one of them is bad.")] = 12,
    seed: Annotated[int, typer.Option(help="Of the moments and the clips.")] = 0,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Drivers without Ray: starts are faster.")
    ] = False,
    s3: Annotated[
        bool, typer.Option("--s3", help="Write to an S3 server, started in FOLDER (dev extra).")
    ] = False,
) -> int:
    """Kill jobs at random moments and run them again; every row must be there once, and right."""
    from jobs.lab.soak.kills import run_kills  # noqa: PLC0415 - torch takes seconds to import

    return run_kills(
        folder,
        model=model,
        num_kills=count,
        num_videos=videos,
        seed=seed,
        in_process=in_process,
        in_s3=s3,
    )


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
    from jobs.lab.soak.chaos import run_chaos  # noqa: PLC0415 - likewise

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
    from jobs.lab.soak.memory import run_memory  # noqa: PLC0415 - likewise

    return run_memory(folder, model=model, num_clips=clips, num_early=early, seed=seed)


@app.command()
def plan(
    folder: Folder,
    model: Model = None,
    clips: Annotated[int, typer.Option(min=8, help="To plan, and then to analyse.")] = 200,
) -> int:
    """Plan an archive on this machine, run it, and compare: frames, tokens, time, memory."""
    from jobs.lab.soak.soak_plan import run_plan  # noqa: PLC0415 - likewise

    return run_plan(folder, model=model, num_clips=clips)


@app.command()
def faults(
    folder: Annotated[Path, typer.Argument(help="For clips and jobs.")],
    model: Model = None,
    only: Annotated[
        list[str], typer.Option(help="Faults whose names contain this; may be repeated.")
    ] = [],  # noqa: B006
    videos: Annotated[int, typer.Option(min=6, help="In each job; one of them is bad.")] = 24,
    scale: Annotated[
        float, typer.Option(help="Of every time that is waited for by default.")
    ] = 0.1,
) -> int:
    """Let one fault after another befall a job; its rows must be as if nothing had happened."""
    from jobs.lab.soak.faults import run_faults  # noqa: PLC0415 - likewise

    return run_faults(folder, model=model, only=only, num_videos=videos, scale=scale)
