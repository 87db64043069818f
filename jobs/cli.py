"""`vidray`: what people type. Exit codes: 0 all good, 3 some videos failed, 1 failed, 2 misused."""

import signal
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.exceptions import TyperException

from jobs.batch.cli import app as batch
from jobs.batch.cli import results
from jobs.exits import Exit
from jobs.flags import takes
from jobs.lab.cli import app as lab
from jobs.serving import ServingOptions
from pipeline.errors import ConfigError, VidrayError
from pipeline.platforms import objection_here
from pipeline.tasks.options import TaskOptions

app = typer.Typer(
    name="vidray",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
model = typer.Typer(no_args_is_help=True, help="Checkpoints in the standard Hugging Face layout.")
profile = typer.Typer(no_args_is_help=True, help="How much of a machine or a fleet vidray takes.")


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print(f"vidray {version_of('vidray')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say which this is."),
    ] = False,
) -> None:
    """Videos in, tables out: captions, answers and boxes by Qwen2-VL."""


app.add_typer(batch, name="batch")
app.add_typer(results)
app.add_typer(model, name="model")
app.add_typer(profile, name="profile")
app.add_typer(lab)


@app.command()
@takes(TaskOptions, ServingOptions)
def analyze(
    tasks: TaskOptions,
    serving: ServingOptions,
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP...", help="Videos or pictures.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for frames with the boxes drawn on them.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON record per line.")] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Write a timeline of every stage; opens in ui.perfetto.dev.")
    ] = None,
) -> int:
    """Describe clips, answer questions about them, find things in them."""
    with Console(stderr=True).status("starting"):
        from jobs.analyze import AnalyzeCommand, run  # noqa: PLC0415 - torch takes seconds to import

    return run(
        AnalyzeCommand(
            tasks=tasks, serving=serving, clips=tuple(clips), out=out, json=json, trace=trace
        )
    )


@app.command()
@takes(ServingOptions)
def demo(
    serving: ServingOptions,
    out: Annotated[Path, typer.Option(help="Folder for clips, rows and page.")] = Path("out/demo"),
    clips: Annotated[int, typer.Option(min=1, help="How many to make.")] = 12,
) -> int:
    """Make a small archive of clips, analyse it, and compare with the truth."""
    with Console(stderr=True).status("starting"):
        from jobs.demo.demo import run_demo  # noqa: PLC0415 - torch takes seconds to import

    return run_demo(console=Console(highlight=False), folder=out, serving=serving, num_clips=clips)


@app.command()
def report(
    rows: Annotated[str, typer.Argument(metavar="OUT", help="A job's output, or a .parquet file.")],
    page: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
    frames: Annotated[
        int, typer.Option(min=0, help="Show frames of this many videos, 35 kB each.")
    ] = 100,
) -> int:
    """Write rows as one HTML page that opens from disk."""
    from jobs.report.command import run  # noqa: PLC0415 - torch takes seconds to import

    return run(rows, page, max_strips=frames, console=Console(highlight=False))


@app.command()
def trace(
    timeline: Annotated[Path, typer.Argument(help="What `vidray analyze --trace` wrote.")],
    picture: Annotated[Path, typer.Argument(help="The SVG to write.")] = Path("trace.svg"),
) -> None:
    """Draw a timeline as a picture; ui.perfetto.dev shows the same file at any scale."""
    from jobs.trace_picture import draw  # noqa: PLC0415 - only this command needs it

    draw(timeline, picture)


@model.command()
def check(
    path: Annotated[Path, typer.Argument(help="A model folder.")],
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Also load the language model and say how far --int8 takes it off."
        ),
    ] = False,
) -> int:
    """Say what a model folder holds, what it costs in memory, and what is wrong with it."""
    from jobs.model_check import run  # noqa: PLC0415 - torch takes seconds to import

    return run(path, Console(), int8=int8)


@profile.command()
def show(
    name: Annotated[
        Path | None,
        typer.Argument(help="One that comes with vidray, or a file; else what is used without."),
    ] = None,
) -> None:
    """Print every setting of a profile with what it means, as a file to start your own from."""
    from jobs.profiles import show as run  # noqa: PLC0415 - torch takes seconds to import

    run(name)


def main() -> None:
    """Run the command line; whatever goes wrong is one line and an exit code."""
    # As an exception, so that children are ended and the terminal is given back.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(Exit.TERMINATED))
    objection = objection_here()
    sys.exit(_complain(objection, Exit.FAILED) if objection else _run())


def _run() -> int:
    try:
        code: int = app(standalone_mode=False) or Exit.OK
    except TyperException as error:
        return _complain(error.format_message(), Exit.MISUSED)
    except ConfigError as error:
        return _complain(str(error), Exit.MISUSED)
    except (VidrayError, OSError) as error:
        return _complain(str(error), Exit.FAILED)
    # typer makes an exit code of Ctrl-C before anyone else sees it
    return _complain("stopped", Exit.INTERRUPTED) if code == Exit.INTERRUPTED else code


def _complain(message: str, code: Exit) -> Exit:
    if message:  # empty: help was shown
        print(f"vidray: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
