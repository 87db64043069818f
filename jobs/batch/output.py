"""A job's output folder, opened to be looked at: its plan, its rows, one video among them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, StoreCorrupt
from pipeline.store.items import Item
from pipeline.store.job_plan import JobPlan, PlannedItems, load_plan
from pipeline.store.objects import ObjectStore
from pipeline.store.open import open_store
from pipeline.store.rows import committed_parts, read_part
from pipeline.store.s3_config import S3Config
from pipeline.tasks.records import Record, from_table


@dataclass(frozen=True, slots=True)
class Output:
    """Where a job writes. s3: how its store and its sources are reached."""

    store: ObjectStore
    plan: JobPlan
    s3: S3Config


@dataclass(frozen=True, slots=True)
class CommittedRow:
    """A committed row and the planned video it is of."""

    item: Item
    record: Record


def open_output(uri: str) -> Output:
    """ConfigError if no job was ever submitted there."""
    s3 = S3Config.from_environment(os.environ)
    store = open_store(uri, s3)
    plan = load_plan(store)
    if plan is None:
        raise ConfigError(f"{uri} holds no job: it has no plan.json")
    return Output(store, plan, s3)


def records_of(rows: pa.Table, *, uri: str) -> list[Record]:
    """The records of a part of this output; StoreCorrupt if they are no rows that we know."""
    try:
        return from_table(rows)
    except ValueError as error:
        raise StoreCorrupt(f"{uri} cannot be read: {str(error).splitlines()[0]}") from error


def find(output: Output, name: str) -> Iterator[CommittedRow]:
    """Rows of the video with this uri, this end of a uri, or this video_id; part by part."""
    planned = PlannedItems(output.store, output.plan)
    for index in committed_parts(output.store):
        table = read_part(output.store, index)
        is_it = pc.or_(
            pc.equal(table["video_id"], name),
            pc.or_(pc.equal(table["uri"], name), pc.ends_with(table["uri"], f"/{name}")),
        )
        records = records_of(table.filter(is_it), uri=output.store.uri)
        items = {item.video_id: item for item in planned.part(index)} if records else {}
        yield from (CommittedRow(items[record.video_id], record) for record in records)
