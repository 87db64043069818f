"""What is wrong with tasks is told before an archive is read for it, at the command line."""

import json
from pathlib import Path

import pytest

from tests.conftest import Vidray
from tests.media_factory import Clip, make


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    make(tmp_path / "clips", Clip(num_frames=6))
    return tmp_path / "clips"


LONG = "why " * 3_000
WRONG = [
    (["--ask", "?", "--schema", '{"type": "foo"}'], "--schema: a schema that can't be used"),
    (["--ask", "?", "--schema", '{"$ref": "http://127.0.0.1/s"}'], "a schema that can't be used"),
    (["--ask", "?", "--schema", "[1]"], "schema [1] cannot be read"),
    (
        ["--ask", "?", "--choices", "a,,b"],
        "--choices: choices must be 1 to 1000 non-empty texts, got 3, number 2 of",
    ),
    (["--ask", LONG], "and its answer need"),
    (["--ground", LONG], "and its answer need"),
    (["--ground", "it", "--at", "nan"], "--at must be a finite number"),
    (["--ask", "a\x00b"], "NUL"),
    (["--max-new-tokens", "32768"], "limit"),
    (["--preset", "papre"], "--preset must be one of paper"),
    (
        ["--long", "windows", "--overlap", "200"],
        "half a window, 192 s at 2 frames per second, got 200",
    ),
    (["--long", "windows", "--fps", "4", "--overlap", "97"], "half a window, 96 s at 4 frames"),
    (
        ["--metrics", "nine"],
        "--metrics must be PORT or HOST:PORT with a port up to 65535, got nine",
    ),
    (["--model", "/nope"], "/nope: not a model folder"),
]


@pytest.mark.parametrize(("asked", "says"), WRONG, ids=lambda value: " ".join(value)[:40])
@pytest.mark.parametrize("command", ["analyze", "batch run", "batch run --dry-run"])
def test_a_task_that_no_video_could_make_right_is_refused_before_the_first_one(
    command: str, asked: list[str], says: str, vidray: Vidray, clips: Path, model: Path
) -> None:
    out = clips.parent / "out"
    places = [clips / "clip.mp4"] if command == "analyze" else [clips, out]
    code, _, said = vidray(*command.split(), *places, "--model", model, "--in-process", *asked)
    assert code == 2, said
    assert says in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("key", ["questions", "ground"])
@pytest.mark.parametrize("text", ["  ", "a\x00b", LONG, "\ud800"], ids=ascii)
def test_a_question_of_a_manifest_is_checked_likewise_and_its_video_named(
    key: str, text: str, vidray: Vidray, clips: Path, model: Path
) -> None:
    videos = [{"uri": "clips/clip.mp4"}, {"uri": "clips/bad.mp4", key: text[:16_000]}]
    (clips.parent / "list.jsonl").write_text("\n".join(map(json.dumps, videos)))
    out = clips.parent / "out"
    code, _, said = vidray("batch", "run", clips.parent / "list.jsonl", out, "--model", model)
    assert code == 2
    assert "bad.mp4" in said or "line 2" in said
    assert "Traceback" not in said
    assert not (out / "parts").exists()
    assert not (out / "plan.json").exists()
