"""What people type of `vidray ingest`, and what it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.ingest.ingest_commands import instant
from jobs.ingest.schedules import Schedule
from pipeline.errors import ConfigError
from pipeline.life import here, is_gone
from tests.conftest import Vidray
from tests.ingest_ticks import schedule
from tests.tiny_folder import write_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ingest.yaml is, and an archive that is empty yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "ingest.yaml").write_text(
        "nightly: {cron: '@hourly', zone: Asia/Tokyo, source: clips, out: rows, settle_s: 0}"
    )
    return tmp_path


def test_a_dry_run_lists_what_would_be_taken_and_writes_nothing(
    place: Path, vidray: Vidray
) -> None:
    for name in ("a.mp4", "b.mp4", "notes.txt"):
        (place / "clips" / name).write_bytes(b"1")
    job = f"{{model: {write_folder(place / 'model')}, videos_per_part: 1}}"
    with (place / "ingest.yaml").open("a") as file:
        file.write(f"\nmade: {{cron: '@hourly', source: clips, out: rows2, job: {job}}}")
    code, said, _ = vidray("ingest", "tick", "made", "--dry-run")
    assert code == 0
    assert said.splitlines() == [
        f"new {place}/clips/a.mp4",
        f"new {place}/clips/b.mp4",
        "2 new, 0 changed of 2 listed",
        "1 file passed over: .txt 1",
        "a batch of 2 videos in 2 parts of 1",
    ]
    assert not (place / "rows2").exists()


def test_a_dry_run_refuses_a_job_as_its_tick_would(place: Path, vidray: Vidray) -> None:
    assert vidray("ingest", "tick", "nightly", "--dry-run")[0] == 0  # it would take nothing
    (place / "clips" / "a.mp4").write_bytes(b"1")
    code, said, error = vidray("ingest", "tick", "nightly", "--dry-run")
    assert (code, "1 new" in said, "--model is missing" in error) == (2, True, True)
    assert not (place / "rows").exists()
    assert vidray("ingest", "tick", "nightly")[2] == error


def test_a_pause_holds_until_it_is_over(place: Path, vidray: Vidray) -> None:
    assert vidray("ingest", "pause", "nightly")[1] == "nightly: paused\n"
    assert vidray("ingest", "tick", "nightly")[1] == "paused\n"
    assert "nightly, paused" in vidray("ingest", "status")[1]
    assert vidray("ingest", "resume", "nightly")[1] == "nightly: resumed\n"
    assert "0 new, 0 changed of 0 listed" in vidray("ingest", "tick", "nightly")[1]


def test_a_backfill_runs_each_tick_of_its_span_once(place: Path, vidray: Vidray) -> None:
    span = ("--from", "2026-11-01T00:00", "--to", "2026-11-01T02:00")
    listed = vidray("ingest", "backfill", "nightly", *span, "--dry-run")[1]
    names = ["20261031T150000Z", "20261031T160000Z", "20261031T170000Z"]  # by Tokyo's clocks
    assert listed.splitlines() == [*names, "3 ticks that nobody ran"]
    assert not (place / "rows").exists()
    assert vidray("ingest", "backfill", "nightly", *span)[0] == 0
    assert vidray("ingest", "backfill", "nightly", *span)[1] == "0 ticks that nobody ran\n"
    code, said, _ = vidray("ingest", "status", "nightly")
    assert code == 0
    assert all(name in said for name in names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tick", "weekly"), "has no schedule 'weekly'; there are nightly"),
        (("tick", "nightly", "--at", "yesterday"), "'yesterday' is no time"),
        (("tick", "nightly", "--at", "9999-01-01T00:00:00Z"), "--at 9999-01-01T00:00:00Z: a tick"),
        (("backfill", "nightly", "--from", "2026-11-02", "--to", "2026-11-01"), "a span that is"),
        (("status", "--schedules", "nowhere.yaml"), "nowhere.yaml: No such file"),
    ],
)
def test_what_is_misused_is_said(
    place: Path, vidray: Vidray, arguments: tuple[str, ...], said: str
) -> None:
    code, _, error = vidray("ingest", *arguments)
    assert code == 2
    assert said in error


def test_ticks_do_not_write_into_a_jobs_output(place: Path, vidray: Vidray) -> None:
    (place / "rows").mkdir()
    (place / "rows" / "plan.json").write_text("{}")
    code, _, error = vidray("ingest", "tick", "nightly")
    assert code == 2
    assert "is the output of a job" in error


def test_a_time_is_by_the_schedules_clocks_if_it_names_no_others() -> None:
    tokyo: Schedule = schedule(zone="Asia/Tokyo")
    assert instant("2026-11-28T09:30", tokyo) == instant("2026-11-28T00:30Z", tokyo)
    with pytest.raises(ConfigError, match="is no time"):
        instant("soon", tokyo)


def test_a_process_of_this_machine_that_is_dead_is_known_to_be() -> None:
    host = here().split("/")[0]
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(f"{host}/{process.pid}/x")  # before its parent asked for its end
        assert process.wait(30) == 0
    assert is_gone(f"{host}/{process.pid}/x")
    assert not is_gone(here())
    assert not is_gone(f"elsewhere/{process.pid}/x")
    assert not is_gone("anything")
