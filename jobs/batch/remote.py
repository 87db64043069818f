"""Jobs on a Ray cluster, through its Jobs API: the submission id is the job id.

The plan is written from here; the cluster then runs `vidray batch run` with the same flags. It
needs vidray installed, the model's folder, and its own credentials for the stores: none are sent.
"""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from deploy.profiles import bundled
from jobs.batch.job import Job
from jobs.batch.job_flags import flags_of
from jobs.batch.output import open_output
from jobs.batch.prepare import Prepared
from jobs.exits import Exit, run_until_stopped
from jobs.models import DEMO_MODEL
from jobs.printable import printable_lines
from pipeline.errors import ConfigError, VidrayError
from pipeline.store.job_plan import load_plan
from pipeline.store.open import S3_SCHEME

PATHS = ("source", "out", "model", "profile", "copies", "link_root", "log_file")
STOPPING_S = 30.0  # for actors to end, beyond the job's own grace
OVER = (JobStatus.FAILED, JobStatus.STOPPED)  # and may be submitted again


def submit(job: Job) -> int:
    """Submit, or find submitted; a job that failed or was stopped goes on.

    job.address is that of the Jobs API.
    """
    client = _client(job.address)
    prepared = Prepared.of(job, is_checked=True)
    if load_plan(prepared.store) is None:
        prepared.require_doable()
    plan = prepared.plan()
    status = _status(client, plan.job_id)
    is_over = status in OVER or (bool(job.retry) and status is JobStatus.SUCCEEDED)
    if is_over:
        client.delete_job(plan.job_id)
    if status is None or is_over:
        status = _submit(client, job, plan.job_id)
    print(f"{plan.job_id}: {status.value.lower()}")
    return Exit.OK


def show_status(uri: str, address: str | None) -> None:
    """Print what the cluster knows of the job."""
    status = _status(_client(address), open_output(uri).plan.job_id)
    print(f"cluster  {'unknown' if status is None else status.value.lower()}")


def logs(uri: str, address: str | None, *, follow: bool) -> int:
    """Print what the job's driver has printed so far; with `follow` until it ends."""
    client, job_id = _found(uri, address)
    if follow:
        run_until_stopped(_follow(client, job_id))
    else:
        print(printable_lines(client.get_job_logs(job_id)), end="")
    return Exit.OK


def cancel(uri: str, address: str | None) -> int:
    """Stop the job's driver, as by SIGTERM; submitting again goes on with what is missing."""
    client, job_id = _found(uri, address)
    was_running = client.stop_job(job_id)
    print(f"{job_id}: {'stopping' if was_running else 'was not running'}")
    return Exit.OK


def entrypoint(job: Job) -> str:
    """What the cluster runs. Failure rows are a success there: Ray knows only 0 and failed."""
    fields = job.model_dump(mode="json", by_alias=True, exclude_unset=True)
    command = ["vidray", "batch", "run", *flags_of(_anywhere(fields) | {"address": "auto"})]
    return f"{shlex.join(command)} || [ $? -eq {Exit.SOME_FAILED:d} ]"


def _anywhere(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields, right in any working directory."""
    return {
        name: _absolute(value) if name in PATHS and value is not None else value
        for name, value in fields.items()
    }


def _absolute(value: str | list[str]) -> str | list[str]:
    if isinstance(value, list):
        return [str(Path(each).absolute()) for each in value]
    return value if _is_name(value) else str(Path(value).absolute())


def _is_name(value: str) -> bool:
    """Of what is found from anywhere as it is written: an object, what comes with vidray."""
    return value.startswith(S3_SCHEME) or value in bundled() or value == DEMO_MODEL.name


def _client(address: str | None) -> JobSubmissionClient:
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        where = address or "http://127.0.0.1:8265"
        reason = " ".join(str(error).split())
        raise ConfigError(f"no Ray Jobs API answers at {where}: {reason}") from error


def _found(uri: str, address: str | None) -> tuple[JobSubmissionClient, str]:
    client, job_id = _client(address), open_output(uri).plan.job_id
    if _status(client, job_id) is None:
        raise VidrayError(f"the cluster does not know job {job_id}")
    return client, job_id


async def _follow(client: JobSubmissionClient, job_id: str) -> None:
    async for lines in client.tail_job_logs(job_id):
        print(printable_lines(lines), end="", flush=True)


def _status(client: JobSubmissionClient, job_id: str) -> JobStatus | None:
    """None for a job the cluster does not know."""
    known = {job.submission_id: job.status for job in client.list_jobs()}
    return known.get(job_id)


def _submit(client: JobSubmissionClient, job: Job, job_id: str) -> JobStatus:
    # Ray kills after 3 s otherwise, before parts under way could be finished.
    patience_s = math.ceil(job.grace + STOPPING_S)
    environment = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(patience_s)}}
    try:
        client.submit_job(entrypoint=entrypoint(job), submission_id=job_id, runtime_env=environment)
    except RuntimeError:
        # Somebody else was faster by a moment: then it is there, or the error is a real one.
        if (status := _status(client, job_id)) is None:
            raise
        return status
    return JobStatus.PENDING
