"""`vidray`: what people type."""

import errno
import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from typer import BadParameter
from typer.exceptions import TyperException

from jobs.batch.cli import app as batch
from jobs.batch.cli import results
from jobs.console import console_of
from jobs.exits import MEANINGS, Exit, heed_signals, leave
from jobs.flags import takes
from jobs.help_words import speak_plainly
from jobs.ingest.cli import app as ingest
from jobs.lab.cli import app as lab
from jobs.plan.options import POSITIONAL, Outlook
from jobs.printable import printable
from jobs.progress import ProgressOptions, speaks
from jobs.serve.endpoint_options import EndpointOptions
from jobs.serving import ServingOptions
from pipeline.errors import ConfigError, PlanCorrupt, StoreCorrupt, StoreDenied, VidrayError
from pipeline.names import as_text
from pipeline.platforms import objection_here
from pipeline.settings import explain
from pipeline.tasks.options import TaskOptions

app = typer.Typer(
    name="vidray",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # whose tables cut long flags off on a narrow terminal
    epilog="\n\n".join(
        ["Exit codes of every command:", *(f"{code:d}  {text}" for code, text in MEANINGS.items())]
    ),
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
app.add_typer(ingest, name="ingest")
app.add_typer(results)
app.add_typer(model, name="model")
app.add_typer(profile, name="profile")
app.add_typer(lab)


@app.command()
@takes(TaskOptions, ServingOptions, ProgressOptions)
def analyze(
    tasks: TaskOptions,
    serving: ServingOptions,
    progress: ProgressOptions,
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP", help="Videos or pictures.")],
    out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="A file for the rows (.parquet, .csv, .jsonl), or a folder for frames with what "
            "--ground found drawn on them; may be repeated.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON record per line.")] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Write a timeline of every stage; opens in ui.perfetto.dev.")
    ] = None,
) -> int:
    """Describe clips, answer questions on them, find things."""
    with console_of(stderr=True, quiet=progress.quiet).status("starting"):
        from jobs.analyze import AnalyzeCommand, run  # noqa: PLC0415 - torch takes seconds to import

    return run(
        AnalyzeCommand(
            tasks=tasks,
            serving=serving,
            progress=progress,
            clips=tuple(clips),
            out=tuple(out or ()),
            json=json,
            trace=trace,
        )
    )


@app.command()
@takes(ServingOptions)
@speaks
def demo(
    serving: ServingOptions,
    progress: Console,
    out: Annotated[Path, typer.Option(help="Folder for clips, rows and page.")] = Path("out/demo"),
    clips: Annotated[int, typer.Option(min=1, help="How many to make.")] = 12,
) -> int:
    """Make a small archive, analyse it, compare with the truth."""
    with progress.status("starting"):
        from jobs.demo.demo import run_demo  # noqa: PLC0415 - torch takes seconds to import

    console = console_of()
    return run_demo(progress, console=console, folder=out, serving=serving, num_clips=clips)


@app.command()
@takes(Outlook, positional=POSITIONAL)
@speaks
def plan(outlook: Outlook, progress: Console) -> int:
    """Say what a job would take, and what will not fit, before anything runs.

    It takes a job's own flags; those that change no figure are passed over. Nothing is written but
    --calibrate's file in the user's cache.
    """
    with progress.status("starting"):
        from jobs.plan.plan_command import run  # noqa: PLC0415 - torch takes seconds to import

    return run(outlook, console_of())


@app.command()
@takes(ServingOptions, EndpointOptions)
@speaks
def serve(serving: ServingOptions, endpoint: EndpointOptions, progress: Console) -> int:
    """Answer over HTTP, as OpenAI's clients ask; docs/endpoint.md has the routes."""
    with progress.status("starting"):
        from jobs.serve.server import run  # noqa: PLC0415 - torch takes seconds to import

    return run(serving, endpoint, console_of(), progress)


@app.command()
@speaks
def report(
    progress: Console,
    rows: Annotated[str, typer.Argument(metavar="OUT", help="A job's output, or a .parquet file.")],
    page: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
    frames: Annotated[
        int, typer.Option(min=0, help="Show frames of this many videos, 35 kB each.")
    ] = 100,
) -> int:
    """Write rows as one HTML page that opens from disk."""
    from jobs.report.command import run  # noqa: PLC0415 - torch takes seconds to import

    console = console_of()
    return run(rows, page, max_strips=frames, console=console, progress=progress)


@app.command()
def trace(
    timeline: Annotated[Path, typer.Argument(help="What `vidray analyze --trace` wrote.")],
    picture: Annotated[Path, typer.Argument(help="The SVG to write.")] = Path("trace.svg"),
) -> None:
    """Draw a timeline as a picture.

    ui.perfetto.dev shows the same file at any scale.
    """
    from jobs.trace_picture import draw  # noqa: PLC0415 - only this command needs it

    draw(timeline, picture)


@app.command()
def top(
    address: Annotated[
        str,
        typer.Argument(
            help="PORT, HOST:PORT or URL of `vidray serve`, or of a job run with --metrics."
        ),
    ] = "127.0.0.1:8000",
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    looks: Annotated[
        int | None, typer.Option(min=1, help="End after so many; at Ctrl-C if not given.")
    ] = None,
) -> int:
    """Watch an endpoint or a job at work: rates, queues, KV cache, failures.

    Where the endpoint wants a key, VIDRAY_KEY holds it.
    """
    from jobs.sight.top import run  # noqa: PLC0415 - only this command needs it

    return run(address, every_s=every, looks=looks, console=console_of())


@app.command()
def formats() -> None:
    """List what is read and what is refused, and why."""
    from jobs.formats import show  # noqa: PLC0415 - only this command needs it

    show()


@model.command()
@speaks
def check(
    progress: Console,
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

    return run(path, console_of(), progress, int8=int8)


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
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # of odd names
    heed_signals()
    objection = objection_here()
    try:
        code = _complain(objection, Exit.FAILED) if objection else _run()
    except SystemExit as told:
        code = told.code if isinstance(told.code, int) else Exit.FAILED
    except KeyboardInterrupt:  # before typer listens, or when it does no more
        code = _complain("stopped", Exit.INTERRUPTED)
    leave(code)


speak_plainly(app)


def _run() -> int:
    try:
        code: int = app(standalone_mode=False) or Exit.OK
    except TyperException as error:
        message = _misspelt(error)
        if message.startswith("Usage: "):  # help, where a command was expected: many lines
            print(message, file=sys.stderr)
            return Exit.MISUSED
        return _complain(message, Exit.MISUSED)
    except (ConfigError, StoreDenied) as error:
        return _complain(str(error), Exit.MISUSED)
    except BrokenPipeError:  # whoever read it has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is buffered
        return Exit.FAILED
    except PlanCorrupt as error:
        return _complain(f"{error}; put it back from a copy, nothing else mends it", Exit.FAILED)
    except StoreCorrupt as error:
        return _complain(
            f"{error}; vidray fsck OUT names all damage, --repair mends it", Exit.FAILED
        )
    except VidrayError as error:
        return _complain(str(error), Exit.FAILED)
    except OSError as error:
        what = ": ".join(map(str, filter(None, [error.filename, error.strerror]))) or str(error)
        return _complain(what, Exit.MISUSED if error.errno in _MISNAMED else Exit.FAILED)
    # typer makes an exit code of Ctrl-C before anyone else sees it
    return _complain("stopped", Exit.INTERRUPTED) if code == Exit.INTERRUPTED else code


def _misspelt(error: TyperException) -> str:
    """What is wrong with what was typed; of a value in the words of all other options."""
    if not isinstance(error, BadParameter) or not isinstance(error.__cause__, ValidationError):
        return error.format_message()
    name = error.param.opts[0] if error.param else ""
    return explain(error.__cause__, lambda _: name)


# Of a place that somebody named, and that cannot be read or written as it is.
_MISNAMED = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
}


def _complain(message: str, code: Exit) -> Exit:
    if message:  # empty: help was shown
        print(f"vidray: {printable(as_text(message))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
