"""vidray batch: jobs over archives."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.batch.flags import takes_job
from jobs.batch.job import Job

app = typer.Typer(no_args_is_help=True, help="Jobs: an archive in, one row per video out.")


@app.command()
@takes_job
def run(
    job: Job,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take.")] = False,
    events: Annotated[
        Path | None, typer.Option(help="A file to append one JSON line per event to.")
    ] = None,
) -> int:
    """Make a row for every video of SRC. Killed or failed, the same command goes on."""
    from jobs.batch.run import run, show_forecast  # noqa: PLC0415 - torch and Ray take seconds

    return show_forecast(job) if dry_run else run(job, events=events)
