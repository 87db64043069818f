"""vidray ingest: schedules, and what is done with them."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.progress import speaks

app = typer.Typer(no_args_is_help=True, help="Archives that grow: at set times, new videos in.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A schedule.")]
Schedules = Annotated[Path, typer.Option(help="The file of schedules.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List what it would take; nothing is written.")
]
FILE = Path("ingest.yaml")


@app.command()
def run(
    schedules: Schedules = FILE,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="[HOST:]PORT", help="Export its numbers there, for Prometheus."),
    ] = None,
) -> int:
    """Run every schedule's ticks when they are due, until stopped."""
    from jobs.ingest.ingest_scheduler import run  # noqa: PLC0415 - --help does without pydantic models

    return run(schedules, metrics=metrics)


@app.command()
def tick(
    name: Name,
    schedules: Schedules = FILE,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANT",
            help="This tick, as 2026-11-28T00:30:00Z, or now; else what is due by the calendar.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with batches that were left lying.")
    ] = False,
    dry_run: DryRun = False,
) -> int:
    """Run what is due, once, whoever else does: for cron, Kubernetes' CronJob, Airflow.

    The exit code is that of its batch; 0 where there was nothing to do.
    """
    from jobs.ingest.ingest_commands import preview, tick  # noqa: PLC0415 - likewise

    return preview(schedules, name) if dry_run else tick(schedules, name, at=at, resume=resume)


@app.command()
@speaks
def status(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A schedule; all if not given.")
    ] = None,
    schedules: Schedules = FILE,
) -> int:
    """Say what was taken, what is under way, and what comes next.

    Exit code 1: a tick or a batch was begun and is not finished.
    """
    from jobs.ingest.ingest_status import run  # noqa: PLC0415 - likewise

    return run(schedules, name)


@app.command()
def backfill(
    name: Name,
    start: Annotated[
        str, typer.Option("--from", metavar="INSTANT", help="The first, as 2026-11-01.")
    ],
    stop: Annotated[str, typer.Option("--to", metavar="INSTANT", help="The last, itself too.")],
    schedules: Schedules = FILE,
    dry_run: DryRun = False,
) -> int:
    """Run the ticks of a span that nobody ran."""
    from jobs.ingest.ingest_commands import backfill  # noqa: PLC0415 - likewise

    return backfill(schedules, name, start=start, stop=stop, dry_run=dry_run)


@app.command()
@speaks
def pause(name: Name, schedules: Schedules = FILE) -> int:
    """Run no tick of it until resumed; what is under way is finished."""
    from jobs.ingest.ingest_commands import pause  # noqa: PLC0415 - likewise

    return pause(schedules, name, is_paused=True)


@app.command()
@speaks
def resume(name: Name, schedules: Schedules = FILE) -> int:
    """Run its ticks again."""
    from jobs.ingest.ingest_commands import pause  # noqa: PLC0415 - likewise

    return pause(schedules, name, is_paused=False)
