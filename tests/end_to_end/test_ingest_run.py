"""Schedulers as processes: they tick by themselves, a signal ends them, and so does a kill."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.ingest.tick import TickPoint
from pipeline.store.catalogue import Catalogue
from pipeline.store.open import open_store
from tests.batch_runs import VIDRAY, assert_complete, end, environment
from tests.conftest import Vidray
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

DEADLINE_S = 180


def test_the_scheduler_ticks_and_ends_at_a_signal(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    file = tmp_path / "ingest.yaml"
    file.write_text(f"s: {{cron: '@daily', source: {tmp_path}/clips, out: {tmp_path}/rows}}")
    scheduler = subprocess.Popen(
        [str(VIDRAY), "ingest", "run", "--schedules", str(file)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not Catalogue(open_store(str(tmp_path / "rows"))).state.ticks:
            assert scheduler.poll() is None, scheduler.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        scheduler.send_signal(signal.SIGTERM)
        assert scheduler.wait(DEADLINE_S) == 128 + signal.SIGTERM
    finally:
        end(scheduler)


def write_schedule(folder: Path, *, num_clips: int = 2) -> Path:
    """Of an archive that has something for its tick."""
    (folder / "clips").mkdir()
    for number in range(num_clips):
        make(folder / "clips", Clip(num_frames=4), f"{number}")
    model, file = write_folder(folder / "tiny"), folder / "ingest.yaml"
    file.write_text(
        f"s: {{cron: '@yearly', source: {folder}/clips, out: {folder}/rows, settle_s: 0,"
        f" job: {{model: {model}, in-process: true, max-new-tokens: 2, quiet: true}}}}"
    )
    return file


def tick(file: Path, point: str) -> "subprocess.CompletedProcess[str]":
    """One that dies at this point, if there is such a one."""
    command = [sys.executable, "-m", "tests.ingest_command", str(file), "s", point]
    return subprocess.run(
        command,
        env=environment(),
        timeout=DEADLINE_S,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_tick_that_finds_something_loads_neither_torch_nor_ray(tmp_path: Path) -> None:
    """Its batch does, in a process of its own."""
    ticked = tick(write_schedule(tmp_path, num_clips=1), "none")
    assert ticked.returncode == 0
    held = set(ticked.stdout.splitlines()[-1].split()) - {"holds"}
    assert "pyarrow" in held
    assert held.isdisjoint({"torch", "ray", "av"})
    (job,) = Catalogue(open_store(str(tmp_path / "rows"))).jobs
    assert_complete(job)


def test_questions_that_no_video_could_answer_take_nothing(tmp_path: Path) -> None:
    file = write_schedule(tmp_path, num_clips=1)
    file.write_text(file.read_text().replace("quiet: true", f"ask: {'why ' * 3_000}"))
    command = [sys.executable, "-m", "jobs.cli", "ingest", "tick", "s", "--schedules", str(file)]
    refused = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith('vidray: "why why ')
    assert "tokens; limit" in refused.stderr
    assert not Catalogue(open_store(str(tmp_path / "rows"))).state.ticks


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_a_tick_is_told_its_batch_is_told(tmp_path: Path, told: signal.Signals) -> None:
    """Shown of a command that goes on until it is told to end."""
    (tmp_path / "clips").mkdir()
    file, rows = tmp_path / "ingest.yaml", tmp_path / "rows"
    file.write_text(f"s: {{cron: '@daily', source: {tmp_path}/clips, out: {rows}}}")
    program = "from jobs.ingest.batch_process import run_apart; import sys; run_apart(sys.argv[1:])"
    command = [sys.executable, "-c", program, "ingest", "run", "--schedules", str(file)]
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not Catalogue(open_store(str(rows))).state.ticks:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (batch,) = psutil.Process(process.pid).children()
        process.send_signal(told)
        code = process.wait(DEADLINE_S)
        assert code == (-told if told is signal.SIGKILL else 128 + told)
        assert psutil.wait_procs([batch], timeout=DEADLINE_S)[1] == []
    finally:
        end(process)


def test_ticks_killed_one_after_the_other_make_one_batch(tmp_path: Path, vidray: Vidray) -> None:
    """Each process goes on at once where a dead one of the same machine stopped."""
    file = write_schedule(tmp_path)
    for point in (TickPoint.CLAIMED, TickPoint.TAKEN, TickPoint.SUBMITTED):
        assert tick(file, point).returncode == -signal.SIGKILL, point
    assert vidray("ingest", "tick", "s", "--schedules", file)[0] == 0
    catalogue = Catalogue(open_store(str(tmp_path / "rows")))
    assert len(catalogue.state.ticks) == 1
    (job,) = catalogue.jobs
    assert_complete(job)
