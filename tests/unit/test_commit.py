"""Every planned video ends in exactly one committed row, whatever fails in between."""

import hashlib
import json
import random
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, StoreCorrupt, StoreError, Transient
from pipeline.store.commit import (
    SUCCESS_KEY,
    Part,
    Receipt,
    build_part,
    check_part,
    commit_part,
    finish,
    load_success,
    missing_parts,
    part_index,
    part_key,
)
from pipeline.store.fsck import DAY_S, FsckReport, fsck
from pipeline.store.items import Item
from pipeline.store.job_plan import (
    PLAN_KEY,
    CommitPoint,
    JobSpec,
    PlannedItems,
    load_plan,
    open_job,
)
from pipeline.store.local import LocalStore
from pipeline.store.objects import ObjectStore, find
from pipeline.store.rows import committed_parts, count_rows, read_part
from tests.batch_driver import SPEC, make_items, make_rows, planned_ids, run_job
from tests.stores import FaultyStore, MemoryStore

NUM_ITEMS = 10  # in parts of 3: the last one is short


def committed_ids(store: MemoryStore) -> list[str]:
    """Ids in all parts, as a reader's glob finds them."""
    keys = sorted(key for key in store.objects if key.startswith("parts/"))
    tables = [pq.read_table(pa.BufferReader(store.objects[key][0])) for key in keys]
    return [video_id for table in tables for video_id in table["video_id"].to_pylist()]


def assert_complete(store: MemoryStore) -> None:
    assert committed_ids(store) == planned_ids(store)
    assert len(set(committed_ids(store))) == NUM_ITEMS
    success = load_success(store)
    assert success is not None
    for entry in success:
        data = store.objects[entry.key][0]
        assert entry.sha256 == hashlib.sha256(data).hexdigest()
        assert entry.num_rows == pq.read_metadata(pa.BufferReader(data)).num_rows


def check(store: MemoryStore, **options: object) -> FsckReport:
    return fsck(store, now_s=store.now_s, **options)


def test_an_undisturbed_run_commits_every_video_once_in_plan_order() -> None:
    store = MemoryStore()
    receipts = run_job(store, make_items(NUM_ITEMS))
    assert [receipt.index for receipt in receipts] == [0, 1, 2, 3]
    assert_complete(store)
    assert check(store).is_finished


def test_running_again_computes_nothing_and_changes_nothing() -> None:
    store = MemoryStore()
    run_job(store, make_items(NUM_ITEMS))
    before = dict(store.objects)
    assert run_job(store, make_items(NUM_ITEMS)) == []
    assert store.objects == before


def count_calls() -> int:
    store = FaultyStore(MemoryStore(), fail_at=0, when="before")
    run_job(store, make_items(NUM_ITEMS))
    return store.num_calls


@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("fail_at", range(1, count_calls() + 1))
def test_a_fault_at_any_call_is_healed_by_running_again(fail_at: int, when) -> None:
    inner = MemoryStore()
    with pytest.raises(Transient):
        run_job(FaultyStore(inner, fail_at=fail_at, when=when), make_items(NUM_ITEMS))
    before = {key: data for key, data in inner.objects.items() if key.startswith("parts/")}
    receipts = run_job(inner, make_items(NUM_ITEMS))
    assert_complete(inner)
    assert len(receipts) == 4 - len(before)  # finished parts are not made again
    assert before.items() <= inner.objects.items()


@pytest.mark.parametrize("point", CommitPoint)
def test_a_driver_that_dies_at_any_point_is_resumed(point: CommitPoint) -> None:
    class Died(Exception):
        pass

    def die(here: CommitPoint) -> None:
        if here is point:
            raise Died

    store = MemoryStore()
    with pytest.raises(Died):
        run_job(store, make_items(NUM_ITEMS), checkpoint=die)
    run_job(store, make_items(NUM_ITEMS))
    assert_complete(store)
    assert check(store).orphans == ()


def make_part(store: MemoryStore, *, attempt: str, index: int = 0) -> tuple[Part, pa.Table]:
    plan = open_job(store, SPEC, make_items(NUM_ITEMS))
    items = PlannedItems(store, plan).part(index)
    ids = tuple(item.video_id for item in items)
    part = Part(job_id=plan.job_id, index=index, video_ids=ids, attempt=attempt)
    return part, make_rows(items, attempt=attempt)


def test_a_put_that_landed_without_an_answer_is_recognised_as_ones_own() -> None:
    store = MemoryStore()
    part, rows = make_part(store, attempt="mine")
    with pytest.raises(Transient):
        commit_part(FaultyStore(store, fail_at=1, when="after"), part, rows)
    receipt = commit_part(store, part, rows)
    assert receipt.is_mine
    assert receipt.sha256 == hashlib.sha256(store.objects[part.key][0]).hexdigest()


def test_a_part_another_attempt_committed_is_done_and_kept() -> None:
    store = MemoryStore()
    commit_part(store, *make_part(store, attempt="theirs"))
    theirs = store.objects[part_key(0)]
    receipt = commit_part(store, *make_part(store, attempt="mine"))
    assert not receipt.is_mine
    assert receipt.sha256 == hashlib.sha256(theirs[0]).hexdigest()
    assert store.objects[part_key(0)] == theirs


@pytest.mark.parametrize(
    "content", [b"", b"not Parquet", b"PAR1" * 10, b"x" * 100 + b"\xff\xff\xff\xffPAR1"]
)
def test_something_else_under_a_parts_key_is_reported_not_replaced(content: bytes) -> None:
    store = MemoryStore()
    part, rows = make_part(store, attempt="mine")
    store.put_new(part.key, content)
    with pytest.raises(StoreCorrupt, match="not readable"):
        commit_part(store, part, rows)
    assert find(store, part.key) == content


def test_a_part_of_another_job_is_reported() -> None:
    store = MemoryStore()
    part, rows = make_part(store, attempt="mine")
    commit_part(store, replace(part, job_id="other"), rows)
    with pytest.raises(StoreCorrupt, match="another job"):
        commit_part(store, part, rows)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows.slice(1),
        lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]),
        lambda rows: pa.concat_tables([rows.slice(1), rows.slice(1, 1)]),
        lambda rows: rows.slice(0, 0),
    ],
    ids=["one missing", "one too many", "one twice", "none"],
)
def test_rows_that_are_not_one_per_planned_video_are_never_committed(spoil) -> None:
    store = MemoryStore()
    part, rows = make_part(store, attempt="mine")
    with pytest.raises(ValueError, match="rows for 3 videos"):
        commit_part(store, part, spoil(rows))
    assert missing_parts(store, load_plan(store)) == [0, 1, 2, 3]


def test_a_part_over_the_limit_is_refused_before_the_put() -> None:
    store = MemoryStore()
    part, rows = make_part(store, attempt="mine")
    with pytest.raises(StoreError, match="limit 100"):
        commit_part(store, part, rows, max_bytes=100)
    assert part.key not in store.objects


def test_success_is_only_written_when_every_part_is_there() -> None:
    store = MemoryStore()
    commit_part(store, *make_part(store, attempt="a"))
    with pytest.raises(StoreError, match="3 of 4 parts are missing"):
        finish(store, load_plan(store), sha256s={})
    assert load_success(store) is None


def test_success_learns_the_digests_of_parts_others_made() -> None:
    store = MemoryStore()
    with pytest.raises(Transient):
        run_job(FaultyStore(store, fail_at=9, when="after"), make_items(NUM_ITEMS))
    run_job(store, make_items(NUM_ITEMS))
    assert_complete(store)


def test_a_resumed_job_does_not_list_its_archive_again() -> None:
    def unreadable() -> Iterator[Item]:
        pytest.fail("the archive was listed again")
        yield

    store = MemoryStore()
    open_job(store, SPEC, make_items(NUM_ITEMS))
    assert open_job(store, SPEC, unreadable()).num_items == NUM_ITEMS


def test_submitting_twice_gives_one_job() -> None:
    first, second = MemoryStore(), MemoryStore()
    plan = open_job(first, SPEC, make_items(NUM_ITEMS))
    assert plan == open_job(second, SPEC, make_items(NUM_ITEMS))
    assert plan.job_id != open_job(MemoryStore(), SPEC, make_items(NUM_ITEMS + 1)).job_id
    other = replace(SPEC, config='{"fps": 1}')
    assert plan.job_id != open_job(MemoryStore(), other, make_items(NUM_ITEMS)).job_id
    assert open_job(MemoryStore(), SPEC, make_items(1), job_id="mine").job_id == "mine"


def test_a_plan_says_what_its_listing_passed_over_and_is_the_same_job_without() -> None:
    store = MemoryStore()
    plan = open_job(store, SPEC, make_items(NUM_ITEMS), passed_over={".rm": 1})
    assert load_plan(store) == plan
    assert plan.passed_over == {".rm": 1}
    assert plan.job_id == open_job(MemoryStore(), SPEC, make_items(NUM_ITEMS)).job_id
    assert open_job(store, SPEC, []).passed_over == {".rm": 1}


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("source", "made with another source;"),
        ("model_digest", "made with another model;"),
        ("config", "made with other settings;"),
        ("items_per_part", "made with another number of videos in a part;"),
        ("row_schema", "whose rows have schema 1; this vidray writes schema other"),
    ],
)
def test_another_job_in_the_same_place_is_refused_by_name(field: str, words: str) -> None:
    store = MemoryStore()
    open_job(store, SPEC, make_items(NUM_ITEMS))
    other = replace(SPEC, **{field: 7 if field == "items_per_part" else "other"})
    with pytest.raises(ConfigError, match=words):
        open_job(store, other, make_items(NUM_ITEMS))
    with pytest.raises(ConfigError, match="another job id"):
        open_job(store, SPEC, make_items(NUM_ITEMS), job_id="another")


def test_eight_drivers_at_once_make_one_job_from_different_listings() -> None:
    store = MemoryStore()
    barrier = threading.Barrier(8)

    def drive(number: int) -> str:
        def meet(point: CommitPoint) -> None:
            if point is CommitPoint.PLAN_READY:
                barrier.wait(timeout=10)

        plan = open_job(store, SPEC, make_items(NUM_ITEMS + number % 2), checkpoint=meet)
        run_job(store, make_items(0))
        return plan.job_id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(drive, range(8)))) == 1
    assert committed_ids(store) == planned_ids(store)
    # The loser's shard is the only thing left over, and old age is what makes it deletable.
    assert len(check(store, clean=True).orphans) == 1
    assert check(store, clean=True).deleted == ()
    store.now_s += DAY_S + 1
    assert len(check(store, clean=True).deleted) == 1
    assert check(store) == replace(check(store), problems=(), orphans=(), missing=())


def test_an_empty_archive_is_no_job() -> None:
    with pytest.raises(ConfigError, match="no videos"):
        open_job(MemoryStore(), SPEC, [])


def test_a_video_listed_twice_is_refused_by_name() -> None:
    items = [*make_items(7), Item(uri="/clips/0000004.mp4"), *make_items(1)]
    with pytest.raises(ConfigError, match="2 videos .* the first is /clips/0000004.mp4"):
        open_job(MemoryStore(), SPEC, items)


def test_items_are_found_across_shards() -> None:
    store = MemoryStore()
    spec = replace(SPEC, items_per_part=10_000)
    plan = open_job(store, spec, make_items(65_000))
    assert [shard.num_items for shard in plan.shards] == [30_000, 30_000, 5_000]
    planned = PlannedItems(store, plan)
    parts = [planned.part(index) for index in range(plan.num_parts)]
    assert [item.uri for part in parts for item in part] == [i.uri for i in make_items(65_000)]
    assert len(store.objects[PLAN_KEY][0]) < 2_000
    with pytest.raises(IndexError):
        planned.part(plan.num_parts)


@pytest.mark.parametrize(
    ("key", "index"),
    [
        ("parts/part-00000.parquet", 0),
        ("parts/part-123456.parquet", 123456),
        ("parts/part-000123.parquet", None),
        ("parts/part-1.parquet", None),
        ("parts/part-00001.parquet.tmp", None),
        ("other/part-00001.parquet", None),
    ],
)
def test_a_key_names_one_part_in_one_way(key: str, index: int | None) -> None:
    assert part_index(key) == index


def damaged(key: str) -> MemoryStore:
    store = MemoryStore()
    run_job(store, make_items(NUM_ITEMS))
    data = store.objects[key][0]
    middle = len(data) // 3
    store.objects[key] = (data[:middle] + b"\0\1\2\3" + data[middle + 4 :], store.now_s)
    return store


SHARD_KEY = open_job(MemoryStore(), SPEC, make_items(NUM_ITEMS)).shards[0].key


@pytest.mark.parametrize("key", [part_key(1), SHARD_KEY])
def test_fsck_names_damaged_data_and_deletes_nothing_planned(key: str) -> None:
    store = damaged(key)
    num_objects = len(store.objects)
    store.now_s += 10 * DAY_S
    report = check(store, clean=True)
    assert [problem.key for problem in report.problems] == [key]
    assert not report.is_sound
    assert len(store.objects) == num_objects


def test_fsck_stops_at_a_plan_it_cannot_read() -> None:
    store = damaged(PLAN_KEY)
    before = dict(store.objects)
    with pytest.raises(StoreCorrupt, match=PLAN_KEY):
        check(store, clean=True, repair=True)
    assert store.objects == before


def lost(key: str) -> MemoryStore:
    """A finished job without this object."""
    store = MemoryStore()
    run_job(store, make_items(NUM_ITEMS))
    del store.objects[key]
    return store


@pytest.mark.parametrize(
    "store",
    [damaged(part_key(1)), damaged(SUCCESS_KEY), lost(part_key(2))],
    ids=["damaged part", "damaged marker", "lost part"],
)
def test_damage_is_moved_aside_and_the_job_makes_it_again(store: MemoryStore) -> None:
    table = "tables/boxes/part-00001.parquet"  # derived from a part, and left where that is sound
    store.put_new(table, b"flat")
    before = {data for data, _ in store.objects.values()}
    report = check(store, repair=True)
    assert report.problems
    assert SUCCESS_KEY in report.moved
    assert before <= {data for data, _ in store.objects.values()}  # nothing is deleted
    assert (table in store.objects) is (part_key(1) not in report.moved)
    assert load_success(store) is None
    run_job(store, make_items(NUM_ITEMS))
    assert_complete(store)
    again = check(store, repair=True)
    assert again.is_sound
    assert again.is_finished
    assert not again.moved


def test_a_damaged_plan_cannot_be_mended_and_nothing_is_moved() -> None:
    store = damaged(SHARD_KEY)
    before = dict(store.objects)
    report = check(store, repair=True)
    assert report.is_plan_damaged
    assert not report.moved
    assert store.objects == before


def test_a_repair_that_is_interrupted_is_finished_by_the_next_one() -> None:
    def repaired(store: ObjectStore) -> None:
        fsck(store, now_s=0.0, repair=True)

    counting = FaultyStore(damaged(part_key(1)), fail_at=0, when="before")
    repaired(counting)
    for fail_at in range(1, counting.num_calls + 1):
        store = damaged(part_key(1))
        with suppress(Transient):  # a listing that is left early loses no answer
            repaired(FaultyStore(store, fail_at=fail_at, when="after"))
        repaired(store)
        run_job(store, make_items(NUM_ITEMS))
        assert_complete(store)


def test_fsck_finds_a_part_swapped_lost_or_made_otherwise() -> None:
    store = MemoryStore()
    run_job(store, make_items(NUM_ITEMS))
    store.objects[part_key(0)] = store.objects[part_key(1)]
    del store.objects[part_key(2)]
    part, rows = make_part(store, attempt="again", index=3)
    store.objects[part_key(3)] = (build_part(part, rows), store.now_s)
    reasons = {problem.key: problem.reason for problem in check(store).problems}
    assert "another part" in reasons[part_key(0)]
    assert "lost" in reasons[part_key(2)]
    assert "differ" in reasons[part_key(3)]
    assert check(store).num_rows == 3


def test_fsck_leaves_alone_what_is_not_the_jobs() -> None:
    store = MemoryStore()
    run_job(store, make_items(NUM_ITEMS))
    strangers = ["report.html", "tables/boxes.parquet", "notes/.x.tmp"]
    ours = ["parts/.ab12.tmp", ".ab12.tmp", "parts/part-00009.parquet", "plan/items-ff.parquet",
            "claims/00000/.ab12.tmp"]  # fmt: skip
    for key in strangers + ours:
        store.put_new(key, b"x")
    store.now_s += 2 * DAY_S
    report = check(store, clean=True)
    assert sorted(report.deleted) == sorted(ours)
    assert all(key in store.objects for key in strangers)
    assert report.is_sound


def test_fsck_without_a_job_says_so() -> None:
    with pytest.raises(StoreError, match="holds no job"):
        check(MemoryStore())


def test_a_torn_local_put_is_invisible_and_cleared(tmp_path) -> None:
    store = LocalStore(str(tmp_path))
    run_job(store, make_items(NUM_ITEMS))
    (tmp_path / "parts" / ".0123.tmp").write_bytes(b"half")
    assert len(list(tmp_path.glob("parts/*.parquet"))) == 4
    now_s = (tmp_path / "parts" / ".0123.tmp").stat().st_mtime + DAY_S + 1
    assert fsck(store, now_s=now_s, clean=True).deleted == ("parts/.0123.tmp",)
    assert pq.read_table(tmp_path / "parts").num_rows == NUM_ITEMS


def test_a_reopened_part_must_equal_its_plan() -> None:
    part, rows = make_part(MemoryStore(), attempt="a")
    data = build_part(part, rows)
    ids = part.video_ids
    assert check_part(data, job_id=part.job_id, index=0, video_ids=ids).num_rows == 3
    for job_id, index, wrong_ids, message in [
        ("other", 0, ids, "another job"),
        (part.job_id, 1, ids, "another part"),
        (part.job_id, 0, ids[::-1], "one row per planned video"),
    ]:
        with pytest.raises(StoreCorrupt, match=message):
            check_part(data, job_id=job_id, index=index, video_ids=wrong_ids)
    with pytest.raises(StoreCorrupt, match="not readable"):
        check_part(data[:-1], job_id=part.job_id, index=0, video_ids=ids)


def test_a_plan_of_another_version_is_refused() -> None:
    store = MemoryStore()
    open_job(store, SPEC, make_items(1))
    content = json.loads(store.objects.pop(PLAN_KEY)[0])
    store.put_new(PLAN_KEY, json.dumps({**content, "version": 99}).encode())
    with pytest.raises(ConfigError, match="version 99"):
        load_plan(store)


# Rows that do not fit into one put.

LONG = JobSpec(source="/clips", model_digest="m" * 16, config="{}", items_per_part=NUM_ITEMS)


def long_rows(items: Iterable[Item], made_by: str) -> pa.Table:
    """Rows that do not compress, about 4 kB each."""
    noise = random.Random(made_by)  # noqa: S311 - it has to be repeatable
    columns = {"video_id": [], "made_by": [], "words": []}
    for item in items:
        columns["video_id"].append(item.video_id)
        columns["made_by"].append(made_by)
        columns["words"].append(noise.randbytes(4_000).hex())
    return pa.table(columns)


def commit_long(store: MemoryStore, made_by: str, *, max_bytes: int, **how: object) -> Receipt:
    plan = open_job(store, LONG, make_items(NUM_ITEMS))
    items = PlannedItems(store, plan).part(0)
    ids = tuple(item.video_id for item in items)
    part = Part(job_id=plan.job_id, index=0, video_ids=ids, attempt=made_by)
    return commit_part(store, part, long_rows(items, made_by), max_bytes=max_bytes, **how)


def test_a_part_over_the_limit_is_cut_into_pieces_and_no_row_is_lost() -> None:
    store = MemoryStore()
    receipt = commit_long(store, "a", max_bytes=14_000)
    assert receipt.is_mine
    keys = [key for key in store.objects if key.startswith("parts/")]
    assert len(keys) > 2
    assert all(len(store.objects[key][0]) <= 14_000 for key in keys)
    plan = load_plan(store)
    assert missing_parts(store, plan) == []
    finish(store, plan, sha256s={})
    assert_complete(store)
    assert check(store).is_sound
    assert check(store).num_rows == NUM_ITEMS
    assert committed_parts(store) == [0]
    assert read_part(store, 0)["video_id"].to_pylist() == planned_ids(store)


def test_a_row_that_no_put_can_hold_is_named() -> None:
    with pytest.raises(StoreError, match=r"a row of parts/part-00000.parquet is \d+ bytes"):
        commit_long(MemoryStore(), "a", max_bytes=4_000)


@pytest.mark.parametrize("num_passed", range(1, 12))
def test_a_driver_that_dies_between_pieces_is_gone_on_with_by_one_that_cuts_otherwise(
    num_passed: int,
) -> None:
    store, passed = MemoryStore(), iter(range(1, num_passed))

    def die(point: CommitPoint) -> None:
        if next(passed, None) is None:
            raise RuntimeError("killed")

    with suppress(RuntimeError):
        commit_long(store, "a", max_bytes=14_000, checkpoint=die)
    plan = load_plan(store)
    was = committed_ids(store)
    assert was == planned_ids(store)[: len(was)]
    assert missing_parts(store, plan) == ([] if len(was) == NUM_ITEMS else [0])
    assert count_rows(store).num_parts == (len(was) == NUM_ITEMS)
    commit_long(store, "b", max_bytes=22_000)
    finish(store, plan, sha256s={})
    assert sorted(committed_ids(store)) == sorted(planned_ids(store))
    assert check(store).is_sound
    commit_long(store, "c", max_bytes=1 << 20)  # too late: nothing of it is put
    assert sorted(committed_ids(store)) == sorted(planned_ids(store))


def test_two_drivers_that_cut_differently_put_every_row_once() -> None:
    for _ in range(10):
        store = MemoryStore()
        open_job(store, LONG, make_items(NUM_ITEMS))
        with ThreadPoolExecutor(2) as pool:
            drivers = [
                pool.submit(commit_long, store, name, max_bytes=max_bytes)
                for name, max_bytes in (("a", 10_000), ("b", 18_000))
            ]
        for driver in drivers:
            driver.result()
        assert sorted(committed_ids(store)) == sorted(planned_ids(store))
        assert missing_parts(store, load_plan(store)) == []
