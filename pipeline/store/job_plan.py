"""The plan of a job: which videos, in which parts, made how. Written once, then never changed.

plan.json is small however large the job: the items stand in Parquet shards next to it, named by
their digest, so that two drivers planning at once can never mix their lists.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import MIB
from pipeline.errors import ConfigError, StoreCorrupt
from pipeline.store.items import Item, items_to_table, table_to_items
from pipeline.store.objects import ObjectStore, find
from pipeline.store.parquet import read_table, to_bytes

PLAN_KEY = "plan.json"
SHARD_PREFIX = "plan/"
MAX_SHARD_BYTES = 64 * MIB
_SHARD_ROWS = 32_768  # about 20 MB of items in memory, 2 MB in the store
_VERSION = 1


class CommitPoint(StrEnum):
    """Where a driver may die, in the order of a run. Tests kill one at each."""

    PLAN_STARTED = "plan_started"
    SHARD_WRITTEN = "shard_written"
    PLAN_READY = "plan_ready"
    PLAN_WRITTEN = "plan_written"
    PARTS_LISTED = "parts_listed"
    PART_STARTED = "part_started"
    PART_BUILT = "part_built"
    PART_CHECKED = "part_checked"
    PART_WRITTEN = "part_written"
    PART_DONE = "part_done"
    SUCCESS_READY = "success_ready"
    SUCCESS_WRITTEN = "success_written"


Checkpoint = Callable[[CommitPoint], None]


def pass_by(point: CommitPoint) -> None:
    """The checkpoint of every run that is not a test: nothing happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What makes two submissions the same job. config: the job's settings as canonical JSON.

    row_schema: the version of its rows, so that a job's parts are all alike.
    """

    source: str
    model_digest: str
    config: str
    items_per_part: int = 64
    row_schema: str = "1"  # of plans that do not say

    def __post_init__(self) -> None:
        if not 1 <= self.items_per_part <= _SHARD_ROWS:
            raise ConfigError(
                f"items_per_part must be 1 to {_SHARD_ROWS}, got {self.items_per_part}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One object of planned items: ITEM_SCHEMA rows, in plan order."""

    sha256: str
    num_items: int

    @property
    def key(self) -> str:
        return f"{SHARD_PREFIX}items-{self.sha256[:32]}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """Everything decided before the first video; plan.json is this."""

    job_id: str
    spec: JobSpec
    shards: tuple[Shard, ...]

    @property
    def num_items(self) -> int:
        return sum(shard.num_items for shard in self.shards)

    @property
    def num_parts(self) -> int:
        return -(-self.num_items // self.spec.items_per_part)

    def num_rows(self, part_index: int) -> int:
        """Rows of one part: all parts are full but the last."""
        first = part_index * self.spec.items_per_part
        return min(self.spec.items_per_part, self.num_items - first)


def open_job(
    store: ObjectStore,
    spec: JobSpec,
    items: Iterable[Item],
    *,
    job_id: str | None = None,
    checkpoint: Checkpoint = pass_by,
) -> JobPlan:
    """Submit the job, or find it submitted: the plan in the store is the plan.

    items is only read where no plan is yet, so a resumed job lists nothing; what came to the
    archive since belongs to another job. ConfigError if the store holds a different job.
    """
    if job_id is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", job_id):
        raise ConfigError(f"a job id is 1 to 64 letters, digits, '.', '_' or '-', got {job_id!r}")
    plan = load_plan(store)
    if plan is None:
        checkpoint(CommitPoint.PLAN_STARTED)
        proposed = _write_shards(store, spec, items, job_id=job_id, checkpoint=checkpoint)
        checkpoint(CommitPoint.PLAN_READY)
        store.put_new(PLAN_KEY, _to_json(proposed))
        checkpoint(CommitPoint.PLAN_WRITTEN)
        plan = load_plan(store)  # ours, or that of whoever was faster
    if plan is None:
        raise StoreCorrupt(f"{store.uri}: {PLAN_KEY} was written and is not there")
    _require_same_job(plan, spec, job_id, store.uri)
    return plan


def load_plan(store: ObjectStore) -> JobPlan | None:
    """The plan in the store, None before a job was submitted there."""
    data = find(store, PLAN_KEY)
    return None if data is None else _from_json(data, store.uri)


class PlannedItems:
    """Reads a plan's items part by part; keeps one shard. Safe between threads."""

    def __init__(self, store: ObjectStore, plan: JobPlan) -> None:
        self._store = store
        self._plan = plan
        self._shard_items = plan.shards[0].num_items  # of every shard but the last
        self._held: tuple[int, pa.Table] | None = None
        self._lock = threading.Lock()

    def part(self, index: int) -> tuple[Item, ...]:
        """The items of one part, in plan order."""
        if not 0 <= index < self._plan.num_parts:
            raise IndexError(f"part {index} of {self._plan.num_parts}")
        first = index * self._plan.spec.items_per_part
        shard_index, offset = divmod(first, self._shard_items)
        rows = self._shard(shard_index).slice(offset, self._plan.num_rows(index))
        return tuple(table_to_items(rows))

    def _shard(self, index: int) -> pa.Table:
        with self._lock:
            if self._held is None or self._held[0] != index:
                self._held = (index, read_shard(self._store, self._plan.shards[index]))
            return self._held[1]


def read_shard(store: ObjectStore, shard: Shard) -> pa.Table:
    """One shard, checked against its digest. StoreCorrupt if it is missing or different."""
    data = find(store, shard.key, max_bytes=MAX_SHARD_BYTES)
    if data is None or hashlib.sha256(data).hexdigest() != shard.sha256:
        raise StoreCorrupt(f"{store.uri}: {shard.key} is missing or not what was planned")
    try:
        return read_table(data)
    except ValueError as error:
        raise StoreCorrupt(f"{store.uri}: {shard.key} is {error}") from error


def _write_shards(
    store: ObjectStore,
    spec: JobSpec,
    items: Iterable[Item],
    *,
    job_id: str | None,
    checkpoint: Checkpoint,
) -> JobPlan:
    """Write the items as they come, never holding more than a shard of them."""
    # A part lies in one shard: a multiple of items_per_part.
    shard_rows = _SHARD_ROWS // spec.items_per_part * spec.items_per_part
    digest = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode())
    shards: list[Shard] = []
    ids: list[NDArray[np.uint64]] = []
    stream = iter(items)
    while block := list(islice(stream, shard_rows)):
        table = items_to_table(block)
        data = to_bytes(table)
        shard = Shard(sha256=hashlib.sha256(data).hexdigest(), num_items=len(block))
        if len(data) > MAX_SHARD_BYTES:
            raise ConfigError(
                f"{len(block)} videos of {spec.source} take {len(data)} bytes in the plan; "
                f"limit {MAX_SHARD_BYTES}: leave columns out of the list"
            )
        store.put_new(shard.key, data)  # there already: the same bytes, by its name
        shards.append(shard)
        ids.append(np.array([int(item.video_id[:16], 16) for item in block], dtype=np.uint64))
        for item in block:
            digest.update(f"{item.video_id} {item.etag}\n".encode())
        checkpoint(CommitPoint.SHARD_WRITTEN)
    if not shards:
        raise ConfigError(f"no videos in {spec.source}")
    plan = JobPlan(job_id=job_id or digest.hexdigest()[:20], spec=spec, shards=tuple(shards))
    _require_unique(np.concatenate(ids), plan, store)
    return plan


def _require_unique(ids: NDArray[np.uint64], plan: JobPlan, store: ObjectStore) -> None:
    """Refuse a list that names a video twice; eight bytes an item, so that a million is small."""
    order = np.argsort(ids, kind="stable")
    repeats = order[1:][ids[order[1:]] == ids[order[:-1]]]
    if len(repeats):
        part_index, offset = divmod(int(repeats.min()), plan.spec.items_per_part)
        uri = PlannedItems(store, plan).part(part_index)[offset].uri
        raise ConfigError(f"{len(repeats)} videos are listed more than once, the first is {uri}")


_SPEC_WORDS = {
    "source": "another source",
    "model_digest": "another model",
    "config": "other settings",
    "items_per_part": "another number of videos in a part",
}


def _require_same_job(plan: JobPlan, spec: JobSpec, job_id: str | None, uri: str) -> None:
    held, asked = asdict(plan.spec), asdict(spec)
    differing = [words for name, words in _SPEC_WORDS.items() if held[name] != asked[name]]
    if job_id not in (None, plan.job_id):
        differing.append("another job id")
    # With the schema, what the settings are made of may have changed too: the cause is named.
    if {*differing} <= {_SPEC_WORDS["config"]} and plan.spec.row_schema != spec.row_schema:
        raise ConfigError(
            f"{uri} holds job {plan.job_id}, whose rows have schema {plan.spec.row_schema}; this "
            f"vidray writes schema {spec.row_schema}, and a job's rows are all alike: go on with "
            "the vidray that began it, or choose another output"
        )
    if differing:
        raise ConfigError(
            f"{uri} holds job {plan.job_id}, made with {' and '.join(differing)}; "
            "repeat that job, or choose another output"
        )


def _to_json(plan: JobPlan) -> bytes:
    content = {"version": _VERSION, "num_items": plan.num_items, **asdict(plan)}
    return json.dumps(content, sort_keys=True, indent=1).encode()


def _from_json(data: bytes, uri: str) -> JobPlan:
    try:
        content = json.loads(data)
        if content["version"] != _VERSION:
            raise ConfigError(f"{uri}: {PLAN_KEY} has version {content['version']}, not {_VERSION}")
        shards = tuple(Shard(**shard) for shard in content["shards"])
        return JobPlan(job_id=content["job_id"], spec=JobSpec(**content["spec"]), shards=shards)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"{uri}: {PLAN_KEY} is no plan ({error})") from error
