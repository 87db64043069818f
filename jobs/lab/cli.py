"""The laboratory's commands, which `vidray` mounts beside its own."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.lab.soak.cli import app as soak
from jobs.lab.train.cli import app as demo_model

app = typer.Typer()
app.add_typer(soak, name="soak")
app.add_typer(demo_model, name="demo-model")


@app.command()
def simulate(
    card: Annotated[str, typer.Option(help="Of every fleet.")] = "H100-80",
    most_gpus: Annotated[int, typer.Option(min=1, max=65_536, help="Of the largest cluster.")] = 64,
    full: Annotated[
        bool, typer.Option("--full", help="Up to 4,096 GPUs, with deaths, outages, other chunks.")
    ] = False,
    out: Annotated[
        Path, typer.Option(help="A folder for results and picture; the same again goes on there.")
    ] = Path("out/simulate"),
) -> None:
    """Simulate fleets of ever more GPUs, and say what each size waits for."""
    from rich.console import Console  # noqa: PLC0415 - likewise

    from jobs.lab.simulate.simulate_command import run  # noqa: PLC0415 - torch takes seconds to import
    from jobs.lab.simulate.simulated_sizes import MOST_GPUS  # noqa: PLC0415 - likewise

    most = MOST_GPUS if full else most_gpus
    run(Console(highlight=False), card=card, most_gpus=most, is_full=full, out=out)


@app.command()
def bench(
    topics: Annotated[
        list[str],
        typer.Argument(
            help="frames, memory, model, generate, questions, overlap, fleet, batch, listing, "
            "tick: all if not given; engines (with vLLM), gpu; of the endpoint: endpoint (load), "
            "uploads, hangups, outages, lag, servers."
        ),
    ] = [],  # noqa: B006
    threads: Annotated[int, typer.Option(min=1, help="Of every candidate.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="The median of so many is shown.")] = 5,
    folder: Annotated[
        Path | None, typer.Option(help="Keeps clips and checkpoint for the next run.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Of topic endpoint's load.")] = 0.75,
    vllm: Annotated[
        Path | None, typer.Option(help="Of topic servers: the Python of a venv with vLLM.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Of topic gpu: what arithmetic says, without a GPU.")
    ] = False,
) -> None:
    """Measure against other tools, and this machine's limits."""
    from jobs.lab.bench.topics import Extent, run  # noqa: PLC0415 - torch takes seconds to import

    extent = Extent(threads=threads, rounds=rounds, minutes=minutes, vllm=vllm)
    run(topics, extent, folder=folder, estimate=estimate)
