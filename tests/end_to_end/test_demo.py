"""`vidray demo`: real clips through the real path, and what the model said is what is shown."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.demo.demo_archive import TRUTH_FILE
from jobs.exits import Exit
from jobs.lab.train.export import export
from jobs.lab.train.train import untrained
from jobs.lab.train.vocabulary import load_tokenizer
from jobs.printable import printable

NOTICE = "vidray-demo knows coloured shapes; pass --model for Qwen2-VL"


def vidray(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("vidray")), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def newborn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the demo's shape that has learnt nothing and may not babble for long."""
    folder = tmp_path_factory.mktemp("newborn")
    tokenizer = load_tokenizer()
    export(untrained(tokenizer, seed=0), tokenizer, folder, card="")
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"max_new_tokens": 6}))
    return folder


@pytest.fixture(scope="module")
def shown(newborn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where a demo of the newborn model was run, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = vidray("demo", "--model", str(newborn), "--clips", "2", folder=folder)
    assert done.returncode == Exit.SOME_FAILED, done.stderr  # it draws no box
    return folder, done.stdout


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "out/demo/videos.parquet").to_pylist()


def truths_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "out/demo/clips" / TRUTH_FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_an_untrained_model_is_shown_to_be_wrong(shown: tuple[Path, str]) -> None:
    folder, printed = shown
    assert NOTICE not in printed
    assert printed.count("\N{BALLOT X}") >= 2
    assert "0/2 right" in printed
    table = "".join(printed.split())
    for row, truth in zip(rows_of(folder), truths_of(folder), strict=True):
        assert row["uri"].endswith(truth["file"])
        assert row["captions"][0]["text"] != truth["caption"]
        assert printable(row["captions"][0]["text"])[:4].strip() in table
        asked = {answer["question"] for answer in row["answers"]}
        assert asked == {question["text"] for question in truth["questions"]}
        assert {box["query"] for box in row["boxes"]} == {box["query"] for box in truth["boxes"]}


def test_the_page_shows_the_clips_and_can_be_made_again_without(shown: tuple[Path, str]) -> None:
    folder, _ = shown
    page = (folder / "out/demo/report.html").read_text("utf-8")
    assert page.count("data:image/jpeg") >= 4
    bare = vidray("report", "out/demo/videos.parquet", "--frames", "0", folder=folder)
    assert bare.stdout.startswith("report.html: 2 videos, 0 failed; of the others 4 captions, ")
    assert "data:image/jpeg" not in (folder / "report.html").read_text("utf-8")


def test_without_a_model_nothing_is_made_up(tmp_path: Path) -> None:
    done = vidray("demo", "--model", "no-such-folder", folder=tmp_path)
    assert done.returncode == 1
    assert "there is no model in no-such-folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_nothing_is_a_misuse(tmp_path: Path) -> None:
    done = vidray("report", str(tmp_path), folder=tmp_path)
    assert done.returncode == 2
    assert "no job's output" in done.stderr


@pytest.mark.timeout(300)
def test_the_bundled_model_is_mostly_right(tmp_path: Path) -> None:
    done = vidray("demo", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert NOTICE in done.stdout
    rows, truths = rows_of(tmp_path), truths_of(tmp_path)
    right = [
        row["captions"][0]["text"] == truth["caption"]
        for row, truth in zip(rows, truths, strict=True)
    ]
    assert len(right) == 12
    assert sum(right) >= 8
