"""vidray batch: jobs over archives; and what can be done with their output."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jobs.batch.job import Job
from jobs.batch.job_flags import takes_job
from jobs.progress import speaks

app = typer.Typer(no_args_is_help=True, help="Jobs: an archive in, one row per video out.")
results = typer.Typer()

Out = Annotated[str, typer.Argument(metavar="OUT", help="A job's output.")]
Address = Annotated[
    str | None, typer.Option(help="Of the cluster's Jobs API; http://127.0.0.1:8265 if not given.")
]
Name = Annotated[str, typer.Argument(metavar="URI", help="A video's uri, its end, or its id.")]


@app.command()
@takes_job
def run(
    job: Job,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take.")] = False,
    events: Annotated[
        Path | None, typer.Option(help="A file to append one JSON line per event to.")
    ] = None,
) -> int:
    """Make a row for every video of SRC. Stopped, killed or failed, the same command goes on."""
    from jobs.batch.run import run, show_forecast  # noqa: PLC0415 - torch and Ray take seconds

    return show_forecast(job) if dry_run else run(job, events=events)


@app.command()
@takes_job
def submit(job: Job) -> int:
    """Have a Ray cluster run the job; --address is that of its Jobs API (http://host:8265)."""
    from jobs.batch.remote import submit  # noqa: PLC0415 - likewise

    return submit(job)


@app.command()
@speaks
def status(out: Out, address: Address = None) -> int:
    """Say how far a job is, from its output; with --address what the cluster knows of it, too.

    Exit code 0: finished; 3: finished, some rows say why they failed; 1: not finished.
    """
    from jobs.batch.status import run  # noqa: PLC0415 - likewise

    if address is not None:
        from jobs.batch.remote import show_status  # noqa: PLC0415 - likewise

        show_status(out, address)
    return run(out)


@app.command()
@speaks
def logs(
    out: Out,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Until the job ends.")] = False,
) -> int:
    """Print what a submitted job has printed."""
    from jobs.batch.remote import logs  # noqa: PLC0415 - likewise

    return logs(out, address, follow=follow)


@app.command()
@speaks
def cancel(out: Out, address: Address = None) -> int:
    """Stop a submitted job at the end of its parts under way; submitting it again goes on."""
    from jobs.batch.remote import cancel  # noqa: PLC0415 - likewise

    return cancel(out, address)


@results.command()
@speaks
def fsck(
    progress: Console,
    out: Out,
    clean: Annotated[
        bool, typer.Option("--clean", help="Delete what no plan names, once it is a day old.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Move what is damaged to damaged/ in the output; running the job makes it again.",
        ),
    ] = False,
) -> int:
    """Compare a job's output with its plan, byte by byte.

    Exit code 0: finished; 3: finished, some rows say why they failed; 1: not finished, or damaged.
    """
    from jobs.batch.verify import run  # noqa: PLC0415 - pyarrow and minio take a second to import

    return run(out, clean=clean, repair=repair, progress=progress)


@results.command()
@speaks
def tables(out: Out) -> int:
    """Derive flat captions, answers and boxes next to a job's rows."""
    from jobs.batch.tables import run  # noqa: PLC0415 - likewise

    return run(out)


@results.command()
@speaks
def show(
    out: Out,
    name: Annotated[
        str | None, typer.Argument(metavar="URI", help="A video's uri, its end, or its id.")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only where something failed, an answer or a box too.")
    ] = False,
    code: Annotated[str | None, typer.Option(help="Only where this failed, as truncated.")] = None,
    search: Annotated[
        str | None, typer.Option(help="Only where a name, a question or an answer has this text.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON record per line, every digit of it.")
    ] = False,
) -> int:
    """Print what a job said of its videos.

    Of all a line each; of one everything.
    """
    from jobs.batch.show import RowFilter, run  # noqa: PLC0415 - likewise

    wanted = RowFilter(failed=failed, code=code, search=search)
    return run(out, name, wanted=wanted, limit=limit, json=json)


@results.command()
@speaks
def replay(
    progress: Console,
    out: Out,
    name: Name,
    model: Annotated[
        Path | None, typer.Option(help="The folder the job was run with, if not vidray-demo.")
    ] = None,
) -> int:
    """Make one row again, and say whether it is the same."""
    from jobs.batch.replay import run  # noqa: PLC0415 - torch takes seconds to import

    return run(out, name, model=model, progress=progress)
