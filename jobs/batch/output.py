"""A job's output folder, opened to be looked at: its plan, its rows, one video among them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, StoreCorrupt, StoreDenied, StoreMissing
from pipeline.names import as_text
from pipeline.store.catalogue import is_catalogue
from pipeline.store.items import Item
from pipeline.store.job_plan import JobPlan, PlannedItems, load_plan
from pipeline.store.journal import JOBS_PREFIX
from pipeline.store.objects import ObjectStore
from pipeline.store.open import S3_SCHEME, open_store
from pipeline.store.rows import CommittedPart, newest_parts
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
    require_there(uri)
    s3 = S3Config.from_environment(os.environ)
    store = open_store(uri, s3)
    with naming("output"):
        plan = load_plan(store)
    if plan is None:
        if is_catalogue(store):
            raise ConfigError(f"{uri} holds many jobs: name one of those below {uri}/{JOBS_PREFIX}")
        if os.path.isfile(uri):
            raise ConfigError(f"{uri} is a file, not a job's output: vidray batch run writes one")
        raise ConfigError(f"{uri} holds no job: it has no plan.json")
    return Output(store, plan, s3)


def open_rows(uri: str) -> ObjectStore:
    """Where a job's rows are, or those of all ticks of a schedule. ConfigError as open_output."""
    require_there(uri)
    store = open_store(uri, S3Config.from_environment(os.environ))
    with naming("output"):
        return store if is_catalogue(store) else open_output(uri).store


def require_there(uri: str) -> None:
    """ConfigError if it is a path that leads to nothing; a bucket says so itself."""
    if not uri.startswith(S3_SCHEME) and not os.path.exists(uri):
        raise ConfigError(f"there is no folder or file {uri}")


@contextmanager
def naming(role: str) -> Iterator[None]:
    """A store that refuses at the start is the operator's to mend: ConfigError, with its role."""
    try:
        yield
    except (StoreDenied, StoreMissing) as error:
        raise ConfigError(f"{role}: {error}") from error


def records_of(rows: pa.Table, *, uri: str) -> list[Record]:
    """The records of a part of this output; StoreCorrupt if they are no rows that we know."""
    try:
        return from_table(rows)
    except ValueError as error:
        raise StoreCorrupt(f"{uri} cannot be read: {str(error).splitlines()[0]}") from error


def find(store: ObjectStore, name: str) -> Iterator[CommittedRow]:
    """Rows of the video with this uri, this end of a uri, or this video_id; part by part."""
    name = as_text(name)
    for part in newest_parts(store):
        table = part.rows
        is_it = pc.or_(
            pc.equal(table["video_id"], name),
            pc.or_(pc.equal(table["uri"], name), pc.ends_with(table["uri"], f"/{name}")),
        )
        records = records_of(table.filter(is_it), uri=store.uri)
        items = {item.video_id: item for item in planned_items(part)} if records else {}
        yield from (CommittedRow(items[record.video_id], record) for record in records)


def find_witness(store: ObjectStore) -> Item | None:
    """A small video of the first committed part that has a result; None if none can be read."""
    with suppress(StoreCorrupt):
        for part in newest_parts(store, ["video_id", "status"]):
            rows = part.rows.filter(pc.equal(part.rows["status"], "ok"))
            good = set(rows["video_id"].to_pylist())
            items = [item for item in planned_items(part) if item.video_id in good]
            if items:
                return min(items, key=lambda item: item.size_bytes or 0)
    return None


def planned_items(part: CommittedPart) -> tuple[Item, ...]:
    """The items of a part, by the plan that it was made from."""
    plan = load_plan(part.store)
    if plan is None:
        raise StoreCorrupt(f"{part.store.uri} has parts and no plan")
    return PlannedItems(part.store, plan).part(part.index)
