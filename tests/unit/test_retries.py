"""Failures made again: the old parts stay as they are, and the newest row counts everywhere."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas
import pyarrow.dataset
import pytest

from jobs.batch.made_again import failed_items
from jobs.report.report_rows import read_records
from pipeline.errors import FailureCode
from pipeline.store.commit import Part, commit_part, finish
from pipeline.store.job_plan import PlannedItems, open_job
from pipeline.store.local import LocalStore
from pipeline.store.retries import find_retries, nth_retry
from pipeline.store.rows import count_newest, count_rows
from pipeline.tasks.records import Record, to_table
from tests.batch_driver import SPEC
from tests.job_rows import commit_job, records
from tests.report_rows import good_row

GUIDE = Path(__file__).parents[2] / "docs/batch.md"
BAD = next(record for record in records() if record.status == "failed")
GOOD_NOW = replace(good_row(7, text="Seen at last."), video_id=BAD.video_id, uri=BAD.uri)
WORSE = replace(BAD, code=FailureCode.TOO_MANY_PIXELS)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """A finished job of five videos in two parts, one of them failed; it is made again twice."""
    store = LocalStore(str(tmp_path / "out"))
    commit_job(store)
    monkeypatch.chdir(tmp_path)
    return store


def make_again(store: LocalStore, number: int, row: Record) -> None:
    retry = nth_retry(store, number).store
    items = list(failed_items(store, {str(FailureCode(record.code)) for record in (BAD, WORSE)}))
    plan = open_job(retry, SPEC, items, job_id=f"retry-{number}")
    (ids,) = ((item.video_id,) for item in PlannedItems(retry, plan).part(0))
    part = Part(job_id=plan.job_id, index=0, video_ids=ids, attempt="a")
    commit_part(retry, part, to_table([row]))
    finish(retry, plan, sha256s={})


def codes(store: LocalStore) -> dict[str, int]:
    return dict(count_newest(store).codes)


def test_the_newest_row_counts_and_what_was_committed_stays(out: LocalStore) -> None:
    before = {info.key: info.etag for info in out.scan("parts/")}
    assert codes(out) == {"truncated": 1}
    make_again(out, 1, WORSE)
    assert codes(out) == {"too_many_pixels": 1}
    make_again(out, 2, GOOD_NOW)
    assert codes(out) == {}
    assert [retry.number for retry in find_retries(out)] == [1, 2]
    assert list(failed_items(out, set(FailureCode))) == []
    assert {info.key: info.etag for info in out.scan("parts/")} == before
    assert count_newest(out).num_rows == count_rows(out).num_rows == 5


def test_a_plain_glob_has_every_video_once_and_two_globs_the_newest_rows(out: LocalStore) -> None:
    """By the tools that people have, as docs/batch.md says."""
    make_again(out, 1, WORSE)
    make_again(out, 2, GOOD_NOW)
    first = duckdb.sql("SELECT video_id, code FROM 'out/parts/*.parquet'").fetchall()
    assert sorted(first) == sorted((record.video_id, record.code) for record in records())
    assert len(pandas.read_parquet("out/parts")) == len(records())
    assert pyarrow.dataset.dataset("out/parts").count_rows() == len(records())
    (query,) = re.findall(r'duckdb\.sql\(\s*"""(.*?)"""\s*\)', GUIDE.read_text(), flags=re.DOTALL)
    newest = duckdb.sql(query)
    found = dict(newest.project("video_id, captions[1].text").fetchall())
    assert found.keys() == {record.video_id for record in records()}
    assert found[BAD.video_id] == "Seen at last."
    assert newest.filter("code IS NOT NULL").fetchall() == []


@pytest.fixture
def made(out: LocalStore) -> LocalStore:
    make_again(out, 1, GOOD_NOW)
    return out


def test_every_command_shows_the_newest_row(
    made: LocalStore, vidray: Callable[..., tuple[int, str, str]]
) -> None:
    code, said, _ = vidray("show", "out", BAD.uri)
    assert code == 0
    assert "Seen at last." in said
    assert "truncated" not in said
    code, said, _ = vidray("show", "out")
    assert len(said.splitlines()) == len(records())
    assert "truncated" not in said
    code, said, _ = vidray("batch", "status", "out")
    assert code == 0
    assert "5 of 5, 0 failed" in said
    assert "retries  1" in said
    rows = list(read_records("out"))
    assert sorted(row.video_id for row in rows) == sorted(row.video_id for row in records())
    assert all(row.status == "ok" for row in rows)
    code, said, _ = vidray("fsck", "out")
    assert code == 0
    assert said.count("rows are sound") == 2


def test_flat_tables_are_added_to(
    out: LocalStore, vidray: Callable[..., tuple[int, str, str]]
) -> None:
    assert vidray("tables", "out")[0] == 0
    make_again(out, 1, GOOD_NOW)
    assert vidray("tables", "out")[0] == 0
    query = "SELECT video_id, count(*) FROM 'out/tables/captions/*.parquet' GROUP BY ALL"
    assert dict(duckdb.sql(query).fetchall()) == {row.video_id: 1 for row in records()}
