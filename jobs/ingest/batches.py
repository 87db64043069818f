"""What a tick needs of batch jobs: a listing, a plan of given videos, and somebody to run it."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from jobs.batch.job import Job
from jobs.batch.job_filter import source_filter_of
from jobs.batch.job_flags import typed_flags
from jobs.exits import Exit
from jobs.ingest.batch_process import run_apart
from jobs.ingest.question_process import require_doable_apart
from jobs.printable import printable
from pipeline.store.items import Item
from pipeline.store.job_plan import load_plan
from pipeline.store.objects import ObjectStore
from pipeline.store.passed_over import PassedOver
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import find_items


class Batches(Protocol):
    """Each call may be repeated, and several may make the same one."""

    def listed(self, job: Job, passed_over: PassedOver) -> Iterator[Item]:
        """Every video of the source; the job's limit is not looked at."""
        ...

    def require(self, job: Job, *, like: ObjectStore | None) -> None:
        """ConfigError for whatever would stop such a job before its first video.

        like: an earlier batch of the schedule.
        """
        ...

    def submit(self, job: Job, items: Iterable[Item], passed_over: Mapping[str, int]) -> None:
        """Write the job's plan, or find it written."""
        ...

    def run(self, job: Job, address: str | None) -> Exit:
        """Make its rows here, or have the cluster at this address make them."""
        ...


class RealBatches:
    """By `vidray batch run`, and `submit`; neither torch nor Ray is loaded for it here."""

    def listed(self, job: Job, passed_over: PassedOver) -> Iterator[Item]:
        return find_items(
            job.source,
            source_filter_of(job, limit=None),
            s3=S3Config.from_environment(os.environ),
            passed_over=passed_over,
            left_out=lambda what: print(printable(f"left out: {what}"), file=sys.stderr),
        )

    def require(self, job: Job, *, like: ObjectStore | None) -> None:
        from jobs.batch.prepare import Prepared  # noqa: PLC0415 - of no use where nothing is new

        prepared = Prepared.of(job, is_checked=True)
        plan = load_plan(like) if like is not None else None
        if plan is None or plan.spec != prepared.spec:
            require_doable_apart(prepared.checkpoint, prepared.engine_limits, prepared.method.tasks)

    def submit(self, job: Job, items: Iterable[Item], passed_over: Mapping[str, int]) -> None:
        from jobs.batch.prepare import Prepared  # noqa: PLC0415 - likewise

        Prepared.of(job, is_checked=True).plan(items=items, passed_over=passed_over)

    def run(self, job: Job, address: str | None) -> Exit:
        if address is None:
            return run_apart(["batch", "run", *typed_flags(job)])
        on_cluster = job.model_copy(update={"address": address})
        return run_apart(["batch", "submit", *typed_flags(on_cluster)])
