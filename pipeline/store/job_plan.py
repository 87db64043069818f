"""The plan of a job: which videos, in which parts, made how. Written once, then never changed.

plan.json is small however large the job: the items stand in Parquet shards next to it, named by
their digest, so that two drivers planning at once can never mix their lists.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import MIB
from pipeline.errors import ConfigError, PlanCorrupt
from pipeline.store.items import Item, items_to_table, table_to_items
from pipeline.store.objects import ObjectStore, find
from pipeline.store.parquet import read_table, to_bytes
from pipeline.store.passed_over import describe_passed_over

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

    row_schema: the version of its rows, so that a job's parts are all alike. numerics: in what the
    model computes, and by which engine: its last digits decide words now and then.
    """

    source: str
    model_digest: str
    config: str
    items_per_part: int = 64
    row_schema: str = "1"  # of plans that do not say
    numerics: str = ""  # of plans that do not say

    def __post_init__(self) -> None:
        if not 1 <= self.items_per_part <= _SHARD_ROWS:
            raise ConfigError(f"a part has 1 to {_SHARD_ROWS} videos, got {self.items_per_part}")


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
    """Everything decided before the first video; plan.json is this.

    passed_over: files of the listing that are no videos of the job, by type; they change nothing.
    """

    job_id: str
    spec: JobSpec
    shards: tuple[Shard, ...]
    passed_over: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def num_items(self) -> int:
        return sum(shard.num_items for shard in self.shards)

    @property
    def num_parts(self) -> int:
        return -(-self.num_items // self.spec.items_per_part)

    @property
    def parts_per_shard(self) -> int:
        """Of every shard but the last."""
        return -(-self.shards[0].num_items // self.spec.items_per_part)

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
    passed_over: Mapping[str, int] | None = None,
    checkpoint: Checkpoint = pass_by,
) -> JobPlan:
    """Submit the job, or find it submitted: the plan in the store is the plan.

    items is only read where no plan is yet, so a resumed job lists nothing; what came to the
    archive since belongs to another job. passed_over: filled while items are read. ConfigError if
    the store holds a different job, or replaces objects: create-only puts are what the commit
    protocol stands on.
    """
    if job_id is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", job_id):
        raise ConfigError(f"a job id is 1 to 64 letters, digits, '.', '_' or '-', got {job_id!r}")
    plan = load_plan(store)
    if plan is None:
        checkpoint(CommitPoint.PLAN_STARTED)
        left = {} if passed_over is None else passed_over
        proposed = _write_shards(
            store, spec, items, job_id=job_id, passed_over=left, checkpoint=checkpoint
        )
        checkpoint(CommitPoint.PLAN_READY)
        store.put_new(PLAN_KEY, _to_json(proposed))
        checkpoint(CommitPoint.PLAN_WRITTEN)
        plan = load_plan(store)  # ours, or that of whoever was faster
    if plan is None:
        raise PlanCorrupt(f"{store.uri}: {PLAN_KEY} was written and is not there")
    _require_same_job(plan, spec, job_id, store.uri)
    _require_create_only(store)
    return plan


def _require_create_only(store: ObjectStore) -> None:
    """Put the plan again, the same bytes: where that succeeds, drivers replace others' parts."""
    data = find(store, PLAN_KEY)
    if data is not None and store.put_new(PLAN_KEY, data):
        raise ConfigError(f"{store.uri} ignores create-only puts (If-None-Match); jobs need them")


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


def write_shards(
    store: ObjectStore, items: Iterable[Item], *, items_per_part: int, source: str
) -> Iterator[tuple[Shard, list[Item]]]:
    """Write items as they come, a shard at a time; the same items and size give the same shards."""
    # A part lies in one shard: a multiple of items_per_part.
    shard_rows = _SHARD_ROWS // items_per_part * items_per_part
    stream = iter(items)
    while block := list(islice(stream, shard_rows)):
        data = to_bytes(items_to_table(block))
        shard = Shard(sha256=hashlib.sha256(data).hexdigest(), num_items=len(block))
        if len(data) > MAX_SHARD_BYTES:
            raise ConfigError(
                f"{len(block)} videos of {source} take {len(data)} bytes in the plan; "
                f"limit {MAX_SHARD_BYTES}: leave columns out of the list"
            )
        store.put_new(shard.key, data)  # there already: the same bytes, by its name
        yield shard, block


def lost_shards(store: ObjectStore, plan: JobPlan) -> list[str]:
    """Keys of lists that the plan names and that are not there; none is read."""
    there = {info.key for info in store.scan(SHARD_PREFIX)}
    return [shard.key for shard in plan.shards if shard.key not in there]


def read_shard(store: ObjectStore, shard: Shard) -> pa.Table:
    """One shard, checked against its digest. PlanCorrupt if it is missing or different."""
    data = find(store, shard.key, max_bytes=MAX_SHARD_BYTES)
    if data is None or hashlib.sha256(data).hexdigest() != shard.sha256:
        raise PlanCorrupt(f"{store.uri}: {shard.key} is missing or not what was planned")
    try:
        return read_table(data)
    except ValueError as error:
        raise PlanCorrupt(f"{store.uri}: {shard.key} is {error}") from error


def _write_shards(
    store: ObjectStore,
    spec: JobSpec,
    items: Iterable[Item],
    *,
    job_id: str | None,
    passed_over: Mapping[str, int],
    checkpoint: Checkpoint,
) -> JobPlan:
    """Write the items as they come, never holding more than a shard of them."""
    digest = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode())
    shards: list[Shard] = []
    ids: list[NDArray[np.uint64]] = []
    written = write_shards(store, items, items_per_part=spec.items_per_part, source=spec.source)
    for shard, block in written:
        shards.append(shard)
        ids.append(np.array([int(item.video_id[:16], 16) for item in block], dtype=np.uint64))
        for item in block:
            digest.update(f"{item.video_id} {item.etag}\n".encode())
        checkpoint(CommitPoint.SHARD_WRITTEN)
    if not shards:
        raise ConfigError(no_videos(spec.source, passed_over))
    plan = JobPlan(
        job_id=job_id or digest.hexdigest()[:20],
        spec=spec,
        shards=tuple(shards),
        passed_over=dict(passed_over),
    )
    _require_unique(np.concatenate(ids), plan, store)
    return plan


def no_videos(source: str, passed_over: Mapping[str, int]) -> str:
    """What is said of a place where nothing is taken."""
    left = describe_passed_over(passed_over)
    return f"no videos in {source}" + (f"; {left}" if left else "")


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
    "numerics": "another device, number format or engine ({numerics})",
}
_MADE_BY_SCHEMA = {"config", "numerics"}


def _require_same_job(plan: JobPlan, spec: JobSpec, job_id: str | None, uri: str) -> None:
    held, asked = asdict(plan.spec), asdict(spec)
    names = {name for name in _SPEC_WORDS if held[name] != asked[name]}
    differing = [words.format(**held) for name, words in _SPEC_WORDS.items() if name in names]
    if job_id not in (None, plan.job_id):
        differing.append("another job id")
        names.add("job_id")
    # With the schema, what the settings are made of may have changed too: the cause is named.
    if names <= _MADE_BY_SCHEMA and plan.spec.row_schema != spec.row_schema:
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
        return JobPlan(
            job_id=content["job_id"],
            spec=JobSpec(**content["spec"]),
            shards=shards,
            passed_over={str(kind): int(n) for kind, n in content.get("passed_over", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanCorrupt(f"{uri}: {PLAN_KEY} is no plan ({error})") from error
