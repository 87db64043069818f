"""A small job whose rows are made by hand: what is done with output needs no model."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.store.commit import Part, commit_part, finish
from pipeline.store.items import Item
from pipeline.store.job_plan import JobPlan, JobSpec, PlannedItems, open_job
from pipeline.store.objects import ObjectStore
from pipeline.tasks.records import Record, to_table
from tests.batch_driver import SPEC
from tests.report_rows import ATTACK, bad_row, good_row

LEFT = {".txt": 3, ".rm": 1}  # beside the videos


def records() -> list[Record]:
    """Five videos, the second of them bad, the third one's words hostile."""
    rows = [good_row(0), bad_row(1), good_row(2, text=ATTACK), good_row(3), good_row(4)]
    items = [Item(uri=f"/videos/{index}.mp4") for index in range(len(rows))]
    return [
        replace(row, uri=item.uri, video_id=item.video_id)
        for row, item in zip(rows, items, strict=True)
    ]


def commit_job(
    store: ObjectStore,
    *,
    parts: tuple[int, ...] = (0, 1),
    rows: Sequence[Record] = (),
    spec: JobSpec = SPEC,
) -> JobPlan:
    """Commit these of the job's parts, of these rows or records(); with all it is finished."""
    rows = rows or records()
    plan = open_job(store, spec, (Item(uri=record.uri) for record in rows), passed_over=LEFT)
    by_id = {record.video_id: record for record in rows}
    for index in parts:
        ids = tuple(item.video_id for item in PlannedItems(store, plan).part(index))
        part = Part(job_id=plan.job_id, index=index, video_ids=ids, attempt="a")
        commit_part(store, part, to_table(by_id[video_id] for video_id in ids))
    if len(parts) == plan.num_parts:
        finish(store, plan, sha256s={})
    return plan
