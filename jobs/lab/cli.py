"""The laboratory's commands, which `vidray` mounts beside its own: bench, soak and demo-model."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.lab.soak.cli import app as soak
from jobs.lab.train.cli import app as demo_model

app = typer.Typer()
app.add_typer(soak, name="soak")
app.add_typer(demo_model, name="demo-model")


@app.command()
def bench(
    topics: Annotated[
        list[str],
        typer.Argument(
            help="frames, memory, model, generate, questions, overlap, fleet, batch, listing; "
            "all if not given."
        ),
    ] = [],  # noqa: B006
    threads: Annotated[int, typer.Option(min=1, help="Of every candidate.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="The median of so many is shown.")] = 5,
    folder: Annotated[
        Path | None, typer.Option(help="Keeps clips and checkpoint for the next run.")
    ] = None,
) -> None:
    """Measure against what you would use instead, and against this machine's limits."""
    from jobs.lab.bench.topics import run  # noqa: PLC0415 - torch takes seconds to import

    run(topics, threads=threads, rounds=rounds, folder=folder)
