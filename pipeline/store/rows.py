"""Reading a job's committed rows, whoever made them and whether or not it is finished.

A video that was made again, in a retry or in a later job of the same catalogue, has its newest row
only, wherever rows are read or counted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import BadInput, StoreCorrupt
from pipeline.store.catalogue import Catalogue
from pipeline.store.commit import (
    PART_PREFIX,
    load_success,
    missing_parts,
    part_index,
    part_key,
    read_pieces,
)
from pipeline.store.job_plan import JobPlan, load_plan
from pipeline.store.objects import ObjectInfo, ObjectStore
from pipeline.store.parquet import read_leaves
from pipeline.store.ranged import RangedFile
from pipeline.store.retries import find_retries
from pipeline.store.seen import Digests, Seen, Versions, digests

RESULTS = ("captions", "answers", "boxes")  # columns of lists; each element may have failed
PARTS_AT_ONCE = 8  # being looked at; each waits for its store
_NO_IDS: Digests = np.empty(0, np.uint64)


@dataclass(slots=True)
class RowCounts:
    """What committed rows say. codes: how many videos failed with each code.

    result_codes: how many captions, answers and boxes of the others did.

    foreign: objects at the keys of parts that are none of this job's, and why.
    """

    num_parts: int = 0
    num_rows: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    result_codes: Counter[str] = field(default_factory=Counter)
    foreign: list[str] = field(default_factory=list)

    @property
    def num_failed(self) -> int:
        return self.codes.total()


@dataclass(frozen=True, slots=True)
class CommittedPart:
    """A part, where it stands (the job's output, or one of its retries), and its newest rows."""

    store: ObjectStore
    index: int
    rows: pa.Table


def committed_parts(store: ObjectStore) -> list[int]:
    """Indices of all of its own parts in the store, in order; none that is there in part."""
    plan = load_plan(store)
    if plan is None:
        found = (part_index(info.key) for info in store.scan(PART_PREFIX))
        return sorted({index for index in found if index is not None})
    missing = set(missing_parts(store, plan))
    return [index for index in range(plan.num_parts) if index not in missing]


def read_part(store: ObjectStore, index: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one committed part; StoreCorrupt if they cannot be read."""
    pieces = list(read_pieces(store, index, columns))
    if not pieces:
        raise StoreCorrupt(f"{store.uri}: {part_key(index)} was listed and is gone")
    return pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces)


def read_rows(store: ObjectStore, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Every committed part's rows, in order, one part in memory at a time; the retries' come last.

    columns: with video_id among them.
    """
    return (part.rows for part in newest_parts(store, columns))


def newest_parts(
    store: ObjectStore, columns: Sequence[str] | None = None
) -> Iterator[CommittedPart]:
    """All parts of the job, or of all jobs of a catalogue, and of their retries, without rows that
    were made again later. StoreCorrupt names those that cannot be read, after all others.
    """
    stores = row_stores(store)
    later = [_made_in(each, number) for number, each in enumerate(stores) if number]
    newest = Seen().with_later(later) if later else Seen()
    for number, part in sound_parts(stores, columns):
        if len(newest):
            made_in = newest.find(digests(part.rows["video_id"].to_pylist()))
            part = replace(part, rows=part.rows.filter(pa.array(made_in <= number)))
        yield part


def sound_parts(
    stores: Sequence[ObjectStore], columns: Sequence[str] | None = None
) -> Iterator[tuple[int, CommittedPart]]:
    """Every part, and the place of its store among these. StoreCorrupt names those that cannot be
    read, after all others.
    """
    damage = list[str]()
    for number, store in enumerate(stores):
        for index in committed_parts(store):
            try:
                yield number, CommittedPart(store, index, read_part(store, index, columns))
            except StoreCorrupt as error:
                damage.append(str(error))
    if damage:
        raise StoreCorrupt("; ".join(damage))


def require_none_lost(store: ObjectStore) -> None:
    """StoreCorrupt where a finished job, or one of a catalogue, has lost parts since."""
    lost = list[str]()
    for each in row_stores(store):
        plan = load_plan(each)
        if plan is None or load_success(each) is None:
            continue
        if num_lost := plan.num_parts - len(committed_parts(each)):
            lost.append(
                f"{each.uri}: lost since it was finished: {num_lost} of {plan.num_parts} parts"
            )
    if lost:
        raise StoreCorrupt("; ".join(lost))


def row_stores(store: ObjectStore) -> list[ObjectStore]:
    """Where rows are, the newest last: the job, or the jobs of a catalogue, each with retries."""
    jobs = Catalogue(store).jobs if load_plan(store) is None else [store]
    return [each for job in jobs or [store] for each in _with_retries(job)]


def _with_retries(job: ObjectStore) -> list[ObjectStore]:
    return [job, *(retry.store for retry in find_retries(job))]


def count_newest(store: ObjectStore) -> RowCounts:
    """As count_rows, of each video's newest row."""
    result = count_rows(store)
    if find_retries(store):
        result.codes, result.result_codes = Counter(), Counter()
        for rows in read_rows(store, ["video_id", "code", *RESULTS]):
            result.codes.update(code for code in rows["code"].to_pylist() if code is not None)
            for name in RESULTS:
                result.result_codes.update(inner_codes(rows, name))
    return result


def count_rows(store: ObjectStore) -> RowCounts:
    """Count rows and failures, by the footer and one column of each part, several at a time.

    As they were committed first: what was made again since does not count.
    """
    result, plan = RowCounts(), load_plan(store)
    num_rows: Counter[int] = Counter()  # by part
    parts = [info for info in store.scan(PART_PREFIX) if _is_planned(info, plan)]
    job_id = plan.job_id if plan else None
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        for info, codes in zip(parts, pool.map(partial(_codes, store, job_id), parts), strict=True):
            if isinstance(codes, str):
                result.foreign.append(f"{info.key} {codes}")
                continue
            in_rows, in_results = codes
            num_rows[part_index(info.key) or 0] += len(in_rows)
            result.codes.update(code for code in in_rows if code is not None)
            result.result_codes.update(in_results)
    result.num_rows = num_rows.total()
    whole = (index for index, rows in num_rows.items() if not plan or rows == plan.num_rows(index))
    result.num_parts = sum(1 for _ in whole)
    return result


def _is_planned(info: ObjectInfo, plan: JobPlan | None) -> bool:
    """Whether an object is a part of the job, or a piece of one, by its key."""
    index = part_index(info.key)
    return index is not None and (plan is None or index < plan.num_parts)


def _made_in(store: ObjectStore, number: int) -> Versions:
    """The videos with a row there, each with the store's number in place of an etag."""
    parts = set(committed_parts(store))
    infos = (info for info in store.scan(PART_PREFIX) if part_index(info.key) in parts)
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        ids = [_NO_IDS, *pool.map(partial(_ids, store), infos)]
    made = np.concatenate(ids)
    return Versions(made, np.full(len(made), number, np.uint64))


def _ids(store: ObjectStore, info: ObjectInfo) -> Digests:
    try:
        table = read_leaves(RangedFile(store, info), ["video_id"])
        return digests(table["video_id"].to_pylist())
    except (KeyError, ValueError, BadInput) as error:
        raise StoreCorrupt(f"{store.uri}: {info.key} cannot be read: {error}") from error


Codes = tuple[list[str | None], list[str]]


def _codes(store: ObjectStore, job_id: str | None, info: ObjectInfo) -> Codes | str:
    """Of a part's rows, in order, None a good one's; and of all results that failed in them.

    A text says why it is none of the job's.
    """
    paths = ["code", *(f"{name}.list.element.code" for name in RESULTS)]
    try:
        table = read_leaves(RangedFile(store, info), paths)
        codes: list[str | None] = table["code"].to_pylist()
        result_codes = [code for name in RESULTS for code in inner_codes(table, name)]
    except KeyError as error:
        return f"lacks the column {error}"
    except ValueError as error:
        return f"is {error}"
    except BadInput as error:
        raise StoreCorrupt(f"{store.uri}: {info.key} was listed, and now {error.detail}") from error
    made_by = (table.schema.metadata or {}).get(b"vidray.job_id", b"").decode(errors="replace")
    if job_id not in (None, made_by):
        return "belongs to another job"
    return codes, result_codes


def inner_codes(table: pa.Table, name: str) -> list[str]:
    """Of a column of lists: the codes of what failed, as if it were one list."""
    results = pc.list_flatten(table[name].combine_chunks())
    found: list[str] = pc.struct_field(results, "code").drop_null().to_pylist()
    return found
