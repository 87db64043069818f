"""`vidray batch run`: an archive in, one committed row per video out; run again, it goes on."""

import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console

from actors.profile import Profile
from deploy.profiles import load_profile
from jobs.batch.analyst import Analyst
from jobs.batch.dry_run import dry_run
from jobs.batch.event_log import Events, open_events
from jobs.batch.job import Job
from jobs.batch.prepare import Prepared
from jobs.batch.stop import Stop
from jobs.batch.watch import Watch, describe_failures
from jobs.exits import Exit
from jobs.gauges import Gauges
from jobs.results import DEMO_KNOWS
from jobs.workplace import Workplace
from pipeline.model.declared import DEMO_FLAG
from pipeline.store.archive import Archive
from pipeline.store.commit import finish, load_success
from pipeline.store.drive import Work, drive
from pipeline.store.items import Item
from pipeline.store.job_plan import Checkpoint, JobPlan, pass_by
from pipeline.store.rows import count_rows
from pipeline.tasks.records import Record, to_table

FETCHED_AHEAD = 2  # videos whose bytes come while the fleet is full


def run(job: Job, *, events: Path | None, checkpoint: Checkpoint = pass_by) -> int:
    """Make every missing row; returns the exit code. ConfigError before anything is started."""
    prepared = Prepared.of(job)
    with open_events(events) as file:
        plan = prepared.plan(checkpoint=checkpoint)
        before = count_rows(prepared.store)
        console = Console(stderr=True, highlight=False)
        if DEMO_FLAG in prepared.model.flags:
            console.print(f"The model is a demo model {DEMO_KNOWS}")
        gauges = Gauges()
        told = Events(file, job_id=plan.job_id)
        with Watch(console, plan, before, events=told, figures=gauges.cells) as watch:
            if before.num_parts < plan.num_parts:
                _make_all(prepared, plan, watch, gauges, console, checkpoint)
            elif load_success(prepared.store) is None:
                finish(prepared.store, plan, sha256s={}, checkpoint=checkpoint)
    print(f"{job.out}: {plan.num_items} videos, {describe_failures(watch.codes)}")
    return Exit.SOME_FAILED if watch.codes else Exit.OK


def show_forecast(job: Job) -> int:
    """Say what the job would take; nothing is written."""
    return dry_run(Prepared.of(job), _profile(job))


def _profile(job: Job) -> Profile:
    return load_profile(job.profile) if job.profile else Profile()


def _make_all(
    prepared: Prepared,
    plan: JobPlan,
    watch: Watch,
    gauges: Gauges,
    console: Console,
    checkpoint: Checkpoint,
) -> None:
    job, method = prepared.job, prepared.method
    with (
        Workplace.of(job).opened(method.recipe(prepared.checkpoint), console) as analyse,
        tempfile.TemporaryDirectory(prefix="vidray-", dir=job.copies) as copies,
    ):
        archive = Archive(s3=prepared.s3, folder=copies, max_bytes=prepared.limits.max_bytes)
        analyst = Analyst(analyse, archive, method, prepared.model, hear=gauges.hear)

        async def make_row(item: Item) -> Record:
            record = await analyst.make_row(item)
            gauges.done(item.video_id)
            watch.video(record)
            return record

        work = Work(
            make_row=make_row,
            to_table=to_table,
            num_at_once=_num_at_once(job),
            committed=watch.part,
        )
        stop = Stop(grace_s=job.grace, told=partial(watch.stopping, job.grace))
        watch.begin()
        stop.run(
            drive(
                prepared.store,
                plan,
                work,
                is_stopping=lambda: stop.is_asked,
                checkpoint=checkpoint,
            )
        )


def _num_at_once(job: Job) -> int:
    return 1 if job.in_process else _profile(job).videos_in_flight + FETCHED_AHEAD
