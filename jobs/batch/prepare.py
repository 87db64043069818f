"""From a job to its plan in the output store: how running it starts, and submitting it."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from jobs.batch.job import Job
from jobs.batch.method import Method, make_method
from jobs.batch.output import naming
from jobs.models import model_folder
from jobs.printable import printable
from jobs.workplace import Workplace, require_doable
from pipeline.config import DecodeLimits, EngineLimits
from pipeline.errors import BadInput, ConfigError
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.model_identity import ModelIdentity
from pipeline.store.archive import Archive, Watched, unwatched
from pipeline.store.catalogue import is_catalogue
from pipeline.store.items import Item
from pipeline.store.job_plan import Checkpoint, JobPlan, JobSpec, load_plan, open_job, pass_by
from pipeline.store.objects import ObjectStore
from pipeline.store.open import S3_SCHEME, open_store
from pipeline.store.passed_over import PassedOver
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import absolute, find_items, require_apart
from pipeline.task_check import TaskCheck
from pipeline.tasks.records import SCHEMA_VERSION

MAX_LEFT_OUT = 20  # folders that are named

NO_MODEL = (
    "--model is missing: a Qwen2-VL folder, or vidray-demo, which knows drawn shapes only "
    "and writes nonsense on other footage"
)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job that can start. Making one reads small files only; `plan` is what lists the archive."""

    job: Job
    s3: S3Config
    store: ObjectStore
    checkpoint: Path
    model: ModelIdentity
    method: Method
    limits: DecodeLimits
    spec: JobSpec

    @classmethod
    def of(cls, job: Job, *, is_checked: bool = False) -> "Prepared":
        """ConfigError for whatever would stop the job before its first video.

        is_checked: somebody has called require_doable on one made likewise.
        """
        s3 = S3Config.from_environment(os.environ)
        if job.model is None:
            raise ConfigError(NO_MODEL)
        checkpoint = model_folder(job.model)
        workplace = Workplace.of(job)
        model = ModelIdentity.of(checkpoint, numerics=workplace.numerics(int8=job.int8))
        limits = workplace.limits(job.limits)
        method = replace(
            make_method(job, load_generation(checkpoint).sampling), int8=model.numerics.int8
        )
        spec = JobSpec(
            source=absolute(job.source),
            model_digest=model.digest,
            config=method.to_json(),
            items_per_part=job.videos_per_part,
            row_schema=str(SCHEMA_VERSION),
            numerics=str(model.numerics),
        )
        store = open_store(job.out, s3)
        prepared = cls(
            job=job,
            s3=s3,
            store=store,
            checkpoint=checkpoint,
            model=model,
            method=method,
            limits=limits,
            spec=spec,
        )
        if not is_checked:
            prepared.require_doable()
        return prepared

    def require_doable(self) -> None:
        """ConfigError for tasks that would fail on every video alike.

        A real vocabulary takes seconds and 200 MB to be loaded for that.
        """
        require_doable(self.method.tasks, self.task_check)

    @cached_property
    def task_check(self) -> TaskCheck:
        return TaskCheck(self.checkpoint, self.engine_limits)

    @property
    def engine_limits(self) -> EngineLimits:
        """Of whoever will answer. ConfigError for a profile that cannot be."""
        return Workplace.of(self.job).engine_limits(self.method.recipe(self.checkpoint))

    @property
    def uses_s3(self) -> bool:
        return any(uri.startswith(S3_SCHEME) for uri in (self.spec.source, self.job.out))

    def items(self, passed_over: PassedOver) -> Iterator[Item]:
        """The archive's videos, streamed; what else is listed on the way is counted, and at the end
        it is said what could not be looked into.

        ConfigError if they and the rows would be mixed, and for one whose own questions are wrong.
        """
        require_apart(self.spec.source, self.job.out)
        left_out: list[str] = []
        with naming("source"):
            for item in find_items(
                self.spec.source,
                self.method.source_filter,
                s3=self.s3,
                passed_over=passed_over,
                left_out=left_out.append,
            ):
                if item.questions or item.ground:
                    self._require_doable(item)
                yield item
        for what in left_out[:MAX_LEFT_OUT]:
            print(printable(f"left out: {what}"), file=sys.stderr)
        if (more := len(left_out) - MAX_LEFT_OUT) > 0:
            print(f"left out: {more} more", file=sys.stderr)

    def _require_doable(self, item: Item) -> None:
        try:
            self.task_check.require(self.method.tasks_for(item))
        except BadInput as error:
            raise ConfigError(f"{item.uri}: {error.detail}") from error

    def archive(self, folder: str, *, watched: Watched = unwatched) -> Archive:
        """Opens the videos; copies go into the folder. watched: as Archive explains it."""
        return Archive(
            watched=watched,
            s3=self.s3,
            folder=folder,
            max_bytes=self.limits.max_bytes,
            link_roots=self.method.source_filter.link_roots,
        )

    def plan(
        self,
        *,
        items: Iterable[Item] | None = None,
        passed_over: Mapping[str, int] | None = None,
        checkpoint: Checkpoint = pass_by,
    ) -> JobPlan:
        """Submit the job to its store, or find it submitted there.

        items: its videos, those of the source if not given; passed_over: files beside them.
        """
        listed = PassedOver(passed_over or {})
        with naming("output"):
            if load_plan(self.store) is None and is_catalogue(self.store):
                raise ConfigError(
                    f"{self.job.out} is a schedule's; a job needs an output of its own"
                )
            return open_job(
                self.store,
                self.spec,
                self.items(listed) if items is None else items,
                job_id=self.job.job_id,
                passed_over=listed,
                checkpoint=checkpoint,
            )
