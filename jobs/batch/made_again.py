"""`vidray batch run --retry CODES`: the named failures of a finished job, made again."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import chain, islice

from jobs.batch.output import planned_items
from jobs.batch.prepare import Prepared
from pipeline.errors import ConfigError
from pipeline.store.commit import load_success
from pipeline.store.items import Item
from pipeline.store.job_plan import Checkpoint, JobPlan, open_job, pass_by
from pipeline.store.objects import ObjectStore
from pipeline.store.retries import find_retries, nth_retry
from pipeline.store.rows import newest_parts


def open_retry(
    prepared: Prepared, codes: Collection[str], *, checkpoint: Checkpoint = pass_by
) -> tuple[Prepared, JobPlan] | None:
    """The job's unfinished retry, whatever it is of, or else a new one; None if there is nothing.

    Two that begin at once make one, as two drivers of a job do.
    """
    store = prepared.store
    plan = prepared.plan()
    if load_success(store) is None:
        raise ConfigError(f"{store.uri} is not finished: run the job without --retry first")
    retries = find_retries(store)
    is_new = not retries or load_success(retries[-1].store) is not None
    number = (retries[-1].number if retries else 0) + is_new
    retry = nth_retry(store, number)
    items = failed_items(store, codes) if is_new else iter(())
    first = list(islice(items, 1))
    if is_new and not first:
        return None
    listed = chain(first, items)
    job_id = f"{plan.job_id[:48]}-retry-{number}"
    made = open_job(retry.store, prepared.spec, listed, job_id=job_id, checkpoint=checkpoint)
    return replace(prepared, store=retry.store), made


def failed_items(store: ObjectStore, codes: Collection[str]) -> Iterator[Item]:
    """Every planned video whose newest row has one of these codes."""
    for part in newest_parts(store, ["video_id", "code"]):
        rows = zip(part.rows["video_id"].to_pylist(), part.rows["code"].to_pylist(), strict=True)
        wanted = {video_id for video_id, code in rows if code in codes}
        if wanted:
            yield from (item for item in planned_items(part) if item.video_id in wanted)
