"""Whose fault it is, through the real command: outages stop a job, and rows can be made again."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.store.open import open_store
from pipeline.store.retries import find_retries
from pipeline.store.rows import read_rows
from tests.batch_runs import DEADLINE_S, assert_complete, environment, rows, vidray
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

NUM_CLIPS = 6
GONE = "clip3.mp4"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(NUM_CLIPS):
        make(folder, Clip(num_frames=12 + number), f"clip{number}")
    return folder


@pytest.fixture
def job(clips: Path, model: Path, tmp_path: Path) -> Path:
    """A job's file; its plan stands, and nothing is made."""
    file = tmp_path / "job.yaml"
    fields = {
        "source": str(clips), "out": str(tmp_path / "out"), "model": str(model),
        "videos_per_part": 2, "max_new_tokens": 4, "in_process": True,
    }  # fmt: skip
    file.write_text(yaml.safe_dump(fields))
    assert killed(file, "plan_written") == -signal.SIGKILL
    return file


def killed(file: Path, point: str, **more: Any) -> int:
    """Run the job until it passes this point."""
    if more:
        fields = yaml.safe_load(file.read_text())
        file = file.with_name("other.yaml")
        file.write_text(yaml.safe_dump(fields | more))
    command = [sys.executable, "-m", "tests.batch_command", str(file), "kill", point]
    done = subprocess.run(
        command, env=environment(), capture_output=True, timeout=DEADLINE_S, check=False
    )
    return done.returncode


def run(file: Path, *options: object) -> "subprocess.CompletedProcess[str]":
    return vidray("batch", "run", "--job", file, *options)


def codes(out: Path) -> dict[str, str | None]:
    """The newest row of each video."""
    found = [row for table in read_rows(open_store(str(out))) for row in table.to_pylist()]
    return {Path(row["uri"]).name: row["code"] for row in found}


def test_a_file_that_is_deleted_after_the_listing_is_one_row(job: Path, clips: Path) -> None:
    (clips / GONE).unlink()
    done = run(job)
    assert done.returncode == 3, done.stderr
    found = codes(job.with_name("out"))
    assert [name for name, code in found.items() if code] == [GONE]
    assert found[GONE] == "not_found"
    assert_complete(open_store(str(job.with_name("out"))))


def test_an_archive_that_is_away_stops_the_job_which_goes_on_when_it_is_back(
    job: Path, clips: Path
) -> None:
    away = clips.rename(clips.with_name("away"))
    clips.mkdir()  # as an empty mount point
    stopped = run(job, "--patience", 2)
    assert stopped.returncode == 1
    assert "waiting: the store fails whatever it is asked" in stopped.stderr
    *_, resume, reason = stopped.stderr.splitlines()
    assert resume.startswith(f"stopped: 0 of {NUM_CLIPS} rows are committed")
    assert "not_found: no such object" in reason
    assert str(clips) in reason
    assert "--give-up not_found" in reason
    clips.rmdir()
    away.rename(clips)
    done = run(job)
    assert done.returncode == 0, done.stderr
    assert set(codes(job.with_name("out")).values()) == {None}


def test_rows_that_were_given_up_are_made_again_and_again_killed_and_gone_on_with(
    job: Path, clips: Path
) -> None:
    out, away = job.with_name("out"), clips.with_name("away")
    shutil.copytree(clips, away)
    for path in sorted(clips.iterdir())[:3]:
        path.unlink()
    done = run(job, "--give-up", "not_found")
    assert done.returncode == 3, done.stderr
    first = rows(open_store(str(out)))
    assert [row["code"] for row in first].count("not_found") == 3
    parts = {path: path.read_bytes() for path in out.glob("parts/*")}

    assert run(job, "--retry", "forbidden").returncode == 3  # there is none
    assert find_retries(open_store(str(out))) == []
    for path in away.iterdir():
        shutil.copyfile(path, clips / path.name)
        shutil.copystat(path, clips / path.name)
    assert killed(job, "part_written", retry=["not_found"]) == -signal.SIGKILL
    (retry,) = find_retries(open_store(str(out)))
    assert len(rows(retry.store)) in (1, 2)  # one part of it
    done = run(job, "--retry", "not_found")
    assert done.returncode == 0, done.stderr
    assert f"{NUM_CLIPS} videos, 0 failed" in done.stdout
    assert_complete(retry.store)
    assert set(codes(out).values()) == {None}
    assert len(codes(out)) == NUM_CLIPS
    assert {path: path.read_bytes() for path in out.glob("parts/*")} == parts
    assert run(job, "--retry", "all").returncode == 0  # nothing is left
    said = vidray("show", out, "clip0.mp4", "--json")
    assert json.loads(said.stdout)["status"] == "ok"


def test_a_job_that_is_not_finished_has_no_failures_to_make_again(job: Path) -> None:
    refused = run(job, "--retry", "all")
    assert refused.returncode == 2
    assert "is not finished: run the job without --retry first" in refused.stderr


def test_what_stands_under_parts_and_is_not_ours_blocks_no_other_part(job: Path) -> None:
    out = job.with_name("out")
    (out / "parts").mkdir()
    (out / "parts/notes.txt").write_text("mine")
    (out / "parts/part-00099.parquet").write_text("beyond the plan")
    (out / "parts/part-00001.parquet").write_text("in the way")
    stopped = run(job)
    assert stopped.returncode == 1
    assert "not of this job: parts/part-00001.parquet is not readable" in stopped.stderr
    assert "part-00001.parquet is not readable" in stopped.stderr.splitlines()[-1]
    assert "fsck OUT names all damage, --repair mends it" in stopped.stderr.splitlines()[-1]
    assert {path.name for path in out.glob("parts/part-0000?.parquet")} == {
        f"part-0000{index}.parquet" for index in range(3)
    }
    (out / "parts/part-00001.parquet").unlink()
    done = run(job)
    assert done.returncode == 0, done.stderr
    said = vidray("fsck", out).stdout
    assert "6 of 6 rows are sound" in said
    assert "not in the plan: parts/part-00099.parquet" in said
