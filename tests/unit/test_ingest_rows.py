"""Rows of all ticks are read as one table: of each video the newest, whoever reads."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from jobs.ingest.duckdb_view import views_of
from jobs.ingest.tick import Ticker
from pipeline.store.commit import Part, commit_part, finish
from pipeline.store.items import Item
from pipeline.store.job_plan import PlannedItems, load_plan, open_job
from pipeline.store.local import LocalStore
from pipeline.store.objects import ObjectStore
from pipeline.store.open import open_store
from pipeline.store.retries import nth_retry
from pipeline.tasks.records import Record, to_table
from tests.batch_driver import SPEC
from tests.conftest import Vidray
from tests.ingest_ticks import FakeBatches, schedule
from tests.job_rows import commit_job
from tests.media_factory import Clip, make
from tests.report_rows import bad_row, good_row
from tests.tiny_folder import write_folder

T0 = 1_800_000_000
PAGE = Path(__file__).parents[2] / "docs/ingest.md"


def commit(job: ObjectStore, says: str, *, failed: tuple[str, ...] = ()) -> None:
    """A row for every planned video, with these words, or a failure."""
    plan = load_plan(job)
    assert plan is not None
    for index in range(plan.num_parts):
        items = PlannedItems(job, plan).part(index)
        ids = tuple(item.video_id for item in items)
        part = Part(job_id=plan.job_id, index=index, video_ids=ids, attempt="a")
        commit_part(job, part, to_table(row_of(item, says, failed) for item in items))
    finish(job, plan, sha256s={})


def row_of(item: Item, says: str, failed: tuple[str, ...]) -> Record:
    name = item.uri.rpartition("/")[2]
    row = bad_row(0) if name in failed else good_row(0, text=says)
    return replace(row, uri=item.uri, video_id=item.video_id, etag=item.etag)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Three ticks: a, b, c; then b changed, c damaged, d new; a third under way. d was retried."""
    folder = tmp_path / "rows"
    store, now_s = open_store(str(folder)), T0
    batches = FakeBatches(store, is_leaving=True)
    ticker = Ticker(
        schedule=schedule(max_active=9),
        store=store,
        batches=batches,
        now=lambda: now_s,
        told=lambda text: None,
    )
    jobs = []
    for listing in (
        {"a.mp4": "1", "b.mp4": "1", "c.mp4": "1"},
        {"a.mp4": "1", "b.mp4": "2", "c.mp4": "2", "d.mp4": "1"},
        {"a.mp4": "2", "b.mp4": "2", "c.mp4": "2", "d.mp4": "1"},
    ):
        batches.listing = listing
        ticker.run([int(now_s)])
        now_s += 60
        jobs = [path for path in sorted((folder / "jobs").iterdir())]
    first, second = (open_store(str(path)) for path in jobs[:2])
    commit(first, "old")
    commit(second, "new", failed=("c.mp4", "d.mp4"))
    retry = nth_retry(second, 1).store
    items = [Item(uri="/clips/d.mp4", etag="1")]
    open_job(retry, SPEC, items, job_id="again")
    commit(retry, "retried")
    return folder


def test_show_has_each_videos_newest_row(out: Path, vidray: Vidray) -> None:
    code, said, _ = vidray("show", out, "--json")
    rows = {row["uri"]: row for row in map(json.loads, said.splitlines())}
    assert code == 0
    assert len(said.splitlines()) == 4
    words = {
        uri.rpartition("/")[2]: row["captions"][0]["text"] if row["captions"] else row["code"]
        for uri, row in rows.items()
    }
    assert words == {"a.mp4": "old", "b.mp4": "new", "c.mp4": "truncated", "d.mp4": "retried"}
    assert "new" in vidray("show", out, "b.mp4")[1]


def test_tables_have_the_words_of_newest_rows_alone(out: Path, vidray: Vidray) -> None:
    code, said, _ = vidray("tables", out)
    (captions,) = (line for line in said.splitlines() if "/captions/" in line)
    found = duckdb.read_parquet(captions.rpartition(":")[0]).order("uri").select("uri", "text")
    assert code == 0
    assert [(uri[-5:], text) for uri, text in found.fetchall()] == [
        ("a.mp4", "old"),
        ("b.mp4", "new"),
        ("d.mp4", "retried"),
    ]
    third = sorted((out / "jobs").iterdir())[2]
    commit(open_store(str(third)), "newest")
    (captions,) = (line for line in vidray("tables", out)[1].splitlines() if "/captions/" in line)
    found = duckdb.read_parquet(captions.rpartition(":")[0]).order("uri").select("text")
    assert found.fetchall() == [("newest",), ("new",), ("retried",)]


def test_the_views_for_duckdb_have_the_same(out: Path) -> None:
    database = duckdb.connect()
    database.sql((out / "videos.sql").read_text())
    rows = database.sql("SELECT right(uri, 5), status, code FROM videos ORDER BY uri").fetchall()
    assert rows == [
        ("a.mp4", "ok", None),
        ("b.mp4", "ok", None),
        ("c.mp4", "failed", "truncated"),
        ("d.mp4", "ok", None),
    ]
    words = database.sql("SELECT right(uri, 5), text FROM captions ORDER BY uri").fetchall()
    assert words == [("a.mp4", "old"), ("b.mp4", "new"), ("d.mp4", "retried")]


def test_the_views_of_a_copy_read_it_once_they_say_so(out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.move(out, tmp_path / "elsewhere"))
    views = (copy / "videos.sql").read_text()
    assert "in a copy of it, put the copy's place instead" in views
    database = duckdb.connect()
    database.sql(views.replace(str(out), str(copy)))
    words = database.sql("SELECT right(uri, 5), flags, text FROM captions ORDER BY uri")
    assert words.fetchall() == [
        ("a.mp4", [], "old"),
        ("b.mp4", [], "new"),
        ("d.mp4", [], "retried"),
    ]


def test_the_report_has_each_video_once(out: Path, tmp_path: Path, vidray: Vidray) -> None:
    code, said, _ = vidray("report", out, "--page", tmp_path / "page.html", "--frames", 0)
    assert code == 0
    assert "4 videos, 1 failed" in said


def test_what_is_of_one_job_alone_says_where_the_jobs_are(out: Path, vidray: Vidray) -> None:
    code, _, said = vidray("batch", "status", out)
    assert code == 2
    assert "jobs/" in said


def test_no_job_writes_among_the_ticks(out: Path, tmp_path: Path, vidray: Vidray) -> None:
    (tmp_path / "clips").mkdir()
    make(tmp_path / "clips", Clip(num_frames=4), "clip")
    model = write_folder(tmp_path / "tiny")
    code, _, said = vidray("batch", "run", tmp_path / "clips", out, "--model", model)
    assert code == 2
    assert "is a schedule's; a job needs" in said
    assert not (out / "plan.json").exists()


def test_what_the_page_says_of_duckdb_prints_it(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(out.parent)
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    exec(compile(snippet, str(PAGE), "exec"), {})  # noqa: S102 - our own page
    assert "failed" in capsys.readouterr().out


def test_the_commands_of_the_page_run_on_its_schedule(
    out: Path, monkeypatch: pytest.MonkeyPatch, vidray: Vidray
) -> None:
    monkeypatch.chdir(out.parent)
    (out.parent / "clips").mkdir()
    (written,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    here = written.replace("s3://bucket/clips", "clips").replace("s3://bucket/rows", "new")
    Path("ingest.yaml").write_text(here, encoding="utf-8")
    shown = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]
    commands = [line.partition("#")[0].strip() for line in shown.splitlines()]
    for command in (each for line in commands for each in line.split(";")):
        if not command.startswith("vidray ingest run"):  # which ends when it is stopped
            code, said, errors = vidray(*shlex.split(command)[1:])
            assert code == 0, (command, said, errors)


def test_the_views_are_of_the_place_that_they_name_whatever_is_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "it's [1] *?"
    store = LocalStore(str(folder / "jobs" / "00000001-20261129T160000Z"))
    commit_job(store)
    database = duckdb.connect()
    database.sql(views_of(str(folder)))
    assert database.sql("SELECT count(*) FROM videos").fetchall() == [(5,)]
