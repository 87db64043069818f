"""An answer or a box that failed is counted wherever a video that failed is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.batch.watch import describe_failures
from pipeline.errors import FailureCode
from pipeline.store.local import LocalStore
from pipeline.store.rows import count_rows
from pipeline.tasks.records import Record
from tests.conftest import Vidray
from tests.job_rows import commit_job, records
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder


def half_good(record: Record) -> Record:
    """One answer and one box of it failed."""
    answer = replace(record.answers[0], answer="", finish_reason=None, code=FailureCode.BAD_PROMPT)
    failed = {"outcome": "failed", "code": FailureCode.BEYOND_END}
    box = replace(record.boxes[1], **failed)
    return replace(record, answers=(answer,), boxes=(record.boxes[0], box))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished job of four videos, none of which failed as a whole."""
    rows = [half_good(row) for row in records() if row.status == "ok"]
    commit_job(LocalStore(str(tmp_path / "out")), rows=rows)
    return tmp_path / "out"


def test_status_and_report_count_them(out: Path, vidray: Vidray) -> None:
    expected = (
        "0 failed; of the others 8 captions, answers or boxes failed: 4 bad_prompt, 4 beyond_end"
    )
    code, said, _ = vidray("batch", "status", out)
    assert code == 3
    assert f"4 of 4, {expected}" in said
    page = out.parent / "page.html"
    code, said, _ = vidray("report", out, "--page", page, "--frames", 0)
    assert f"4 videos, {expected}" in said
    assert "failed captions, answers, boxes</dt><dd>8</dd>" in page.read_text()


def test_rows_are_found_by_what_failed_within_them(out: Path, vidray: Vidray) -> None:
    for chosen, count in (
        (["--failed"], 4),
        (["--code", "beyond_end"], 4),
        (["--code", "truncated"], 0),
    ):
        code, said, _ = vidray("show", out, *chosen)
        assert (code, len(said.splitlines())) == (0, count)


def test_good_rows_alone_are_counted_as_such(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "out"))
    commit_job(store, rows=[row for row in records() if row.status == "ok"])
    made = count_rows(store)
    assert (made.num_rows, made.codes, made.result_codes) == (4, {}, {})
    assert describe_failures(made.codes, made.result_codes) == "0 failed"


def test_a_moment_after_the_end_is_a_failure_of_its_box_and_of_nothing_else(
    tmp_path: Path, vidray: Vidray
) -> None:
    clip = make(tmp_path, Clip(num_frames=12, fps=12))
    asked = ("--ground", "it", "--at", 99, "--max-new-tokens", 4)
    model = ("--model", write_folder(tmp_path / "model"), "--in-process")
    code, said, err = vidray("analyze", clip, *asked, *model)
    assert code == 3
    assert f"{clip}: caption: " in said
    assert "find it at 99.00 s: failed: beyond_end: the video ends at 1.00 s" in said
    assert "1 of its answers or boxes failed" in err
    code, said, _ = vidray("analyze", clip, *asked, *model, "--json")
    record = json.loads(said)
    assert (record["status"], record["boxes"][0]["code"]) == ("ok", "beyond_end")
    job = ("batch", "run", tmp_path, tmp_path.parent / "out", *asked, *model)
    code, said, _ = vidray(*job)
    assert code == 3
    assert "1 videos, 0 failed; of the others 1 caption, answer or box failed" in said
    for retried, is_told in (("beyond_end", True), ("all", True), ("truncated", False)):
        code, _, err = vidray(*job, "--retry", retried)
        assert (code, f"no video failed with {retried}" in err) == (3, True)
        assert ("would fail alike, and are not made again" in err) is is_told
