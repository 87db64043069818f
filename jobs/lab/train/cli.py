"""vidray demo-model: train it, score it."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="The bundled vidray-demo: train it, score it.")


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="Checkpoints and logs; resumed if there are any.")],
    weights: Annotated[Path | None, typer.Option(help="Where the model is written.")] = None,
    begin: Annotated[
        Path | None,
        typer.Option("--from", help="A vidray-demo to go on from."),
    ] = None,
    decoder_steps: int = 3600,
    vision_steps: int = 6400,
    together_steps: int = 3300,
    seed: int = 0,
    threads: int = 2,
) -> None:
    """Train vidray-demo, from nothing or from an earlier one.

    SIGTERM saves and stops; the same command goes on.
    """
    from jobs.lab.train.train import Budget  # noqa: PLC0415 - torch takes seconds to import
    from jobs.lab.train.train import train as run

    budget = Budget(
        decoder_steps=decoder_steps,
        vision_steps=vision_steps,
        together_steps=together_steps,
        seed=seed,
    )
    run(folder, budget, begin=begin, weights=weights, num_threads=threads)


@app.command()
def ablate(steps: Annotated[int, typer.Option(min=5)] = 600, threads: int = 2) -> None:
    """Train without M-RoPE, and without dynamic resolution, for as long as with; compare."""
    from jobs.lab.train import ablate as ablation  # noqa: PLC0415 - torch takes seconds to import

    for choice, sides in ablation.ablate(num_steps=steps, num_threads=threads):
        Console().print(ablation.table(choice, sides))


@app.command(name="eval")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint folder.")],
    clips: Annotated[int, typer.Option(min=1, help="Clips of each variant.")] = 500,
    variants: Annotated[bool, typer.Option(help="Also off the training grid.")] = False,
    output: Annotated[Path | None, typer.Option(help="Figures as JSON.")] = None,
    write_card: Annotated[bool, typer.Option(help="Put the scores into its README.md.")] = False,
) -> None:
    """Score a checkpoint on real files through the real pipeline, on seeds never trained on."""
    from jobs.lab.train.card import card  # noqa: PLC0415 - torch takes seconds to import
    from jobs.lab.train.evaluate import VARIANTS  # noqa: PLC0415
    from jobs.lab.train.evaluate import evaluate as score
    from jobs.lab.train.time_seen import time_is_seen

    chosen = VARIANTS if variants else VARIANTS[:1]
    figures = {v.name: score(model, num_clips=clips, variant=v).figures for v in chosen}
    seen = time_is_seen(model, num_clips=max(1, clips // 5))
    figures["time"] = {kind: seen.share(kind) for kind in ("backwards", "frozen")}
    if write_card:
        scores = figures[VARIANTS[0].name]
        (model / "README.md").write_text(card(scores, num_clips=clips))
    if output:
        output.write_text(json.dumps(figures, indent=2) + "\n")
    Console().print(table(figures))


def table(figures: dict[str, dict[str, float]]) -> Table:
    """A row for each figure, a column for each variant."""
    shown = Table("figure", *figures)
    names = dict.fromkeys(name for column in figures.values() for name in column)
    for name in names:
        cells = (column.get(name) for column in figures.values())
        shown.add_row(name, *("" if cell is None else f"{cell:.1%}" for cell in cells))
    return shown
