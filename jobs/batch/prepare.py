"""From a job to its plan in the output store: how running it starts, and submitting it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.analyze import model_folder
from jobs.batch.job import Job
from jobs.batch.method import Method, make_method
from jobs.workplace import Workplace
from pipeline.config import DecodeLimits
from pipeline.errors import ConfigError
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.served_model import ModelIdentity
from pipeline.store.items import Item
from pipeline.store.job_plan import Checkpoint, JobPlan, JobSpec, open_job, pass_by
from pipeline.store.objects import ObjectStore, probe
from pipeline.store.open import S3_SCHEME, open_store
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import find_items
from pipeline.tasks.records import SCHEMA_VERSION

NO_MODEL = (
    "--model is missing: a Qwen2-VL folder, or vidray-demo, which knows drawn shapes only "
    "and writes nonsense on other footage"
)


@dataclass(frozen=True, slots=True, kw_only=True)
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
    def of(cls, job: Job) -> "Prepared":
        """ConfigError for whatever would stop the job before its first video."""
        s3 = S3Config.from_environment(os.environ)
        if job.model is None:
            raise ConfigError(NO_MODEL)
        checkpoint = model_folder(job.model)
        model = ModelIdentity.of(checkpoint, int8=job.int8)
        limits = Workplace.of(job).limits(job.limits)
        method = make_method(job, load_generation(checkpoint).sampling)
        spec = JobSpec(
            source=job.source if job.source.startswith(S3_SCHEME) else os.path.abspath(job.source),
            model_digest=model.digest,
            config=method.to_json(),
            items_per_part=job.videos_per_part,
            row_schema=str(SCHEMA_VERSION),
        )
        store = open_store(job.out, s3)
        return cls(
            job=job,
            s3=s3,
            store=store,
            checkpoint=checkpoint,
            model=model,
            method=method,
            limits=limits,
            spec=spec,
        )

    def items(self) -> Iterator[Item]:
        """The archive's videos, streamed."""
        return find_items(self.spec.source, self.method.source_filter, s3=self.s3)

    def plan(self, *, checkpoint: Checkpoint = pass_by) -> JobPlan:
        """Submit the job to its store, or find it submitted there."""
        probe(self.store)
        return open_job(
            self.store, self.spec, self.items(), job_id=self.job.job_id, checkpoint=checkpoint
        )
