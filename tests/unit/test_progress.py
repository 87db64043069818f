"""How much is said while a command works, and where: the same flags for one clip and a job."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from jobs import cli
from jobs.batch.job import make_job
from jobs.batch.run import run
from jobs.exits import Exit
from jobs.lab.bench.s3_server import KEYS
from jobs.models import DEMO_NOTICE
from jobs.reference import LABORATORY
from tests.conftest import Vidray
from tests.media_factory import Clip, make
from tests.terminal import on_a_terminal


@pytest.fixture(params=["analyze", "batch run"])
def command(request: pytest.FixtureRequest, tmp_path: Path, model: Path) -> list[object]:
    (tmp_path / "clips").mkdir()
    clip = make(tmp_path / "clips", Clip(num_frames=24))
    places = [clip] if request.param == "analyze" else [clip.parent, tmp_path / "out"]
    asked = ["--model", model, "--in-process", "--max-new-tokens", 4]
    return [*request.param.split(), *places, *asked]


def test_quiet_says_results_alone(command: list[object], vidray: Vidray) -> None:
    code, said, progress = vidray(*command, "--quiet")
    assert (code, progress) == (0, "")
    assert said


def test_quiet_says_no_more_where_the_model_is_the_demos(tmp_path: Path, vidray: Vidray) -> None:
    clip = make(tmp_path, Clip(num_frames=24))
    asked = ("analyze", clip, "--in-process", "--max-new-tokens", 4)
    assert DEMO_NOTICE in vidray(*asked)[2]
    code, said, progress = vidray(*asked, "--quiet")
    assert (code, progress) == (0, "")
    assert said


def test_quiet_is_quiet_on_a_terminal_too(command: list[object]) -> None:
    code, screen = on_a_terminal(*command, "--quiet")
    assert code == 0
    assert not re.search("read|tokens|job|next|loading", screen)


def test_verbose_says_each_chunk_or_video_and_a_log_file_keeps_it(
    command: list[object], vidray: Vidray, tmp_path: Path
) -> None:
    code, _, usual = vidray(*command)
    assert code == 0
    if command[0] == "batch":
        command[3] = tmp_path / "again"
    code, _, progress = vidray(*command, "--verbose", "--log-file", tmp_path / "log.txt")
    assert code == 0
    assert len(progress.splitlines()) > len(usual.splitlines())
    logged = (tmp_path / "log.txt").read_text().splitlines()
    assert all(
        re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|DEBUG) ", line) for line in logged
    )
    assert any("clip.mp4" in line for line in logged)
    assert len(logged) == len(set(logged))


def test_names_make_no_lines_of_a_log_and_no_control_characters_in_it(
    vidray: Vidray, tmp_path: Path, model: Path
) -> None:
    clips, log = tmp_path / "clips", tmp_path / "log.txt"
    clips.mkdir()
    (clips / "a\x1b[31m.mp4").write_text("none")
    (clips / "b\n2026-01-01 00:00:00,000 INFO all is well.mp4").write_text("none")
    job = ("batch", "run", clips, tmp_path / "out", "--model", model, "--in-process")
    assert vidray(*job, "--verbose", "--log-file", log)[0] == 3
    lines = log.read_text().split("\n")
    assert "\x1b" not in log.read_text()
    assert not any(line.startswith("2026-01-01") for line in lines)
    assert any("a\N{REPLACEMENT CHARACTER}[31m.mp4" in line for line in lines)


def test_a_log_file_is_added_to(command: list[object], vidray: Vidray, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("before\n")
    assert vidray(*command, "--log-file", log, "--quiet")[0] == 0
    first, *rest = log.read_text().splitlines()
    assert first == "before"
    assert rest


def test_a_job_says_its_share_and_what_comes_next(
    command: list[object], vidray: Vidray, tmp_path: Path
) -> None:
    if command[0] == "analyze":
        pytest.skip("of jobs")
    command[3] = tmp_path / "my out"
    code, _, progress = vidray(*command)
    assert code == 0
    assert "1/1 videos, 0 failed" in progress
    assert "100%" in progress
    place = f"'{tmp_path}/my out'"
    assert progress.splitlines()[-1] == f"next: vidray report {place}; vidray show {place}"
    (tmp_path / "clips" / "bad.mp4").write_text("no video")
    command[3] = tmp_path / "other"
    code, _, progress = vidray(*command)
    assert code == 3
    assert progress.splitlines()[-1].endswith(f"vidray show {tmp_path}/other --failed")


def commands(command: Any, name: str = "vidray") -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for key, child in command.commands.items():
        yield from commands(child, f"{name} {key}")


SAY_RESULTS_ONLY = ("vidray formats", "vidray profile show", "vidray top", "vidray trace")
AS_THEIR_JOBS_SAY = ("vidray ingest run", "vidray ingest tick", "vidray ingest backfill")


def test_every_command_that_takes_a_while_has_the_same_three_flags() -> None:
    without = {
        name
        for name, command in commands(typer.main.get_command(cli.app))
        if not {"--quiet", "--verbose", "--log-file"}
        <= {flag for parameter in command.params for flag in parameter.opts}
    }
    assert {name for name in without if not name.startswith(LABORATORY)} == {
        *SAY_RESULTS_ONLY,
        *AS_THEIR_JOBS_SAY,
    }


@pytest.fixture(scope="module")
def out(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished job of one video."""
    folder = tmp_path_factory.mktemp("job")
    make(folder, Clip(num_frames=12))
    file = folder / "job.yaml"
    fields = {"source": folder / "clip.mp4", "out": folder / "out", "model": model}
    file.write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    assert run(make_job(file, {"in_process": True, "max_new_tokens": 4}), events=None) == 0
    return folder / "out"


WORKING = (
    "replay OUT clip.mp4 --model MODEL",
    "report OUT --page PAGE",
    "fsck OUT",
    "show OUT",
    "tables OUT",
    "batch status OUT",
    "model check MODEL",
    "demo --clips 1 --in-process --out DEMO",
)


@pytest.mark.parametrize("command", WORKING)
def test_whatever_works_says_results_alone_when_told_to(
    command: str, out: Path, model: Path, vidray: Vidray, tmp_path: Path
) -> None:
    places = {"OUT": out, "MODEL": model, "PAGE": tmp_path / "page", "DEMO": tmp_path / "demo"}
    typed = [places.get(word, word) for word in command.split()]
    log = tmp_path / "log.txt"
    code, said, progress = vidray(*typed, "--quiet", "--log-file", log)
    assert code in (Exit.OK, Exit.SOME_FAILED), progress
    assert said
    assert progress == ""
    assert log.exists()


def test_a_store_that_does_not_answer_is_told_of_in_the_log_of_any_command(
    vidray: Vidray, bound: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bound.getsockname()[1]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    log = tmp_path / "log.txt"
    code, _, told = vidray("show", "s3://videos/rows", "--quiet", "--log-file", log)
    assert code == Exit.FAILED
    assert re.search(r"WARNING .*asking again, 3 of 3", log.read_text())
    assert "asking again" not in told
    _, _, told = vidray("show", "s3://videos/rows")
    assert "asking again, 3 of 3" in told
