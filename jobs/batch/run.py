"""`vidray batch run`: an archive in, one committed row per video out; run again, it goes on."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from actors.profile import Profile
from deploy.profiles import load_profile
from jobs.batch.analyst import Analyst
from jobs.batch.dry_run import dry_run
from jobs.batch.event_log import Events, open_events
from jobs.batch.job import Job, chosen
from jobs.batch.jury import Jury
from jobs.batch.made_again import open_retry
from jobs.batch.output import find_witness
from jobs.batch.prepare import Prepared
from jobs.batch.stop import Stop
from jobs.batch.watch import Watch, describe_failures
from jobs.exits import Exit
from jobs.gauges import Gauges
from jobs.printable import printable
from jobs.progress import said
from jobs.results import DEMO_KNOWS
from jobs.sight.exporter import exported
from jobs.sight.job_sight import JobMeters
from jobs.sight.spans import VideoSpans, video_spans
from jobs.sight.work import OBJECT_STORE, follow_disks
from jobs.workplace import Workplace
from pipeline.about import about
from pipeline.events import Event
from pipeline.model.declared import DEMO_FLAG
from pipeline.store.commit import Receipt, finish, load_success
from pipeline.store.copies import copies_folder
from pipeline.store.drive import Work, drive
from pipeline.store.items import Item
from pipeline.store.job_plan import Checkpoint, JobPlan, PlannedItems, pass_by
from pipeline.store.objects import ObjectStore
from pipeline.store.open import S3_SCHEME, open_store
from pipeline.store.retries import find_retries
from pipeline.store.rows import count_newest, count_rows
from pipeline.store.slots import Slots
from pipeline.tasks.records import Record, to_table

RESULTS_STAY = "captions, answers and boxes that did would fail alike, and are not made again"
FETCHED_AHEAD = 2  # videos whose bytes come while the fleet is full


def run(job: Job, *, events: Path | None, checkpoint: Checkpoint = pass_by) -> int:
    """Make every missing row; returns the exit code. ConfigError before anything is started."""
    prepared = Prepared.of(job)
    output = prepared.store
    with open_events(events) as file, said(job) as console:
        if job.retry:
            again = open_retry(prepared, chosen(job.retry), checkpoint=checkpoint)
            if again is None:
                console.print(f"no video failed with {' or '.join(job.retry)}")
                if count_newest(output).result_codes.keys() & chosen(job.retry):
                    console.print(RESULTS_STAY, soft_wrap=True)
                return _summed_up(job, output)
            prepared, plan = again
        else:
            plan = prepared.plan(checkpoint=checkpoint)
        if prepared.uses_s3:
            console.print(f"S3 at {prepared.s3.reached}", soft_wrap=True)
        before = count_rows(prepared.store)
        if DEMO_FLAG in prepared.model.flags:
            console.print(f"The model is a demo model {DEMO_KNOWS}")
        gauges, seen = Gauges(), JobMeters()
        told = Events(file, job_id=plan.job_id)
        for what in before.foreign:
            print(printable(f"not of this job: {what}"), file=sys.stderr)
        with (
            about(job=plan.job_id),
            video_spans(job.otel) as spans,
            exported(seen.meters, job.metrics, console),
            Watch(console, plan, before, events=told, figures=gauges.cells) as watch,
        ):
            seen.follow_job(num_planned=plan.num_items, num_done=lambda: watch.num_done)
            if before.num_parts + len(before.foreign) < plan.num_parts:
                _make_all(prepared, plan, watch, gauges, seen, spans, console, checkpoint)
            elif before.foreign or load_success(prepared.store) is None:
                finish(prepared.store, plan, sha256s={}, was_finished=True, checkpoint=checkpoint)
        if find_retries(output):
            return _summed_up(job, output)
        codes, result_codes = watch.codes, watch.result_codes
        if watch.is_shared:
            made = count_rows(prepared.store)
            codes, result_codes = made.codes, made.result_codes
        any_failed = bool(codes or result_codes)
        watch.say(next_steps(job.out, any_failed=any_failed))
    failed = describe_failures(codes, result_codes)
    print(f"{printable(job.out)}: {plan.num_items} videos, {failed}")
    return Exit.SOME_FAILED if any_failed else Exit.OK


def next_steps(out: str, *, any_failed: bool) -> str:
    """What people do with an output, as they type it."""
    place = shlex.quote(out)
    failed = f"; vidray show {place} --failed" if any_failed else ""
    return f"next: vidray report {place}; vidray show {place}{failed}"


def _summed_up(job: Job, output: ObjectStore) -> Exit:
    """Of a job whose failures were made again: the newest row of each video counts."""
    made = count_newest(output)
    failed = describe_failures(made.codes, made.result_codes)
    print(f"{printable(job.out)}: {made.num_rows} videos, {failed}")
    return Exit.SOME_FAILED if made.codes or made.result_codes else Exit.OK


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
    seen: JobMeters,
    spans: VideoSpans,
    console: Console,
    checkpoint: Checkpoint,
) -> None:
    job, method, store = prepared.job, prepared.method, seen.watched(prepared.store)
    with (
        copies_folder(plan.job_id, parent=job.copies) as copies,
        Workplace.of(job).opened(
            method.recipe(prepared.checkpoint),
            console,
            canary=_canary(PlannedItems(prepared.store, plan).part(0)[0], Path(copies)),
        ) as analyse,
    ):
        archive = prepared.archive(copies, watched=seen.watched)
        follow_disks(seen.meters, _places(prepared, Path(copies)))

        def hear(video: str, event: Event) -> None:
            gauges.hear(video, event)
            seen.hear(video, event)
            spans.listener(video)(event)

        analyst = Analyst(analyse, archive, method, prepared.model, hear=hear)
        slots = Slots(_num_at_once(job))
        jury = Jury(
            analyst.make_row,
            slots=slots,
            patience_s=job.patience,
            give_up=job.codes_given_up,
            witnesses=_witnesses(prepared, plan),
            told=watch.outage,
        )

        seen.follow_breakers(lambda: jury.down)

        async def make_row(item: Item) -> Record:
            with seen.working_on(item.video_id):
                record = await jury.make_row(item)
                gauges.done(item.video_id)
                watch.video(record)
                seen.row(record)
                spans.end_row(item.video_id, record)
            return record

        def committed(receipt: Receipt) -> None:
            watch.part(receipt)
            seen.part()

        work = Work(
            make_row=make_row,
            to_table=to_table,
            slots=slots,
            begun=watch.begin,
            committed=committed,
            found=watch.found,
            gets_on=lambda: jury.down is None,
        )
        stop = Stop(grace_s=job.grace, told=watch.stopping)
        stop.run(
            drive(
                store,
                plan,
                work,
                is_stopping=lambda: stop.is_asked,
                checkpoint=checkpoint,
            )
        )


def _places(prepared: Prepared, copies: Path) -> dict[str, Path]:
    """Where this job fills something up, by what it is."""
    job = prepared.job
    places = {"copies": copies}
    if not job.out.startswith(S3_SCHEME):
        places["output"] = Path(job.out)
    if not job.in_process and OBJECT_STORE.is_dir():
        places["object_store"] = OBJECT_STORE
    return places


def _witnesses(prepared: Prepared, plan: JobPlan) -> Iterator[Item]:
    """Videos that may tell a bad one from an outage: one that got through, then any."""
    if before := find_witness(open_store(prepared.job.out, prepared.s3)):
        yield before
    planned = PlannedItems(prepared.store, plan)
    for index in range(plan.num_parts):
        yield from planned.part(index)


def _canary(first: Item, copies: Path) -> Path | None:
    """A file where the readers will look: the first video, or a neighbour of its copy."""
    if not first.uri.startswith(S3_SCHEME):
        return path if (path := Path(first.uri)).is_file() else None
    canary = copies / "canary"
    canary.write_bytes(b"every reader has to see this file\n")
    return canary


def _num_at_once(job: Job) -> int:
    return 1 if job.in_process else _profile(job).videos_in_flight + FETCHED_AHEAD
