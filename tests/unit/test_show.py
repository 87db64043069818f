"""`vidray show`: every row, those that are looked for, one in full; nothing is left out unseen."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.store.items import Item
from pipeline.store.local import LocalStore
from pipeline.tasks.records import Record
from tests.batch_driver import SPEC
from tests.conftest import Vidray
from tests.job_rows import commit_job
from tests.report_rows import bad_row, good_row
from tests.terminal import VIDRAY, on_a_terminal

NUM_ROWS = 240  # more than what was shown at most, once
NUM_PARTS = 8


def rows() -> list[Record]:
    made = [bad_row(index) if index % 40 == 7 else good_row(index) for index in range(NUM_ROWS)]
    items = [Item(uri=f"/videos/clip{index}.mp4") for index in range(NUM_ROWS)]
    digest = replace(made[0].provenance, model_digest="0123456789abcdef" * 4)
    return [
        replace(row, uri=item.uri, video_id=item.video_id, provenance=digest)
        for row, item in zip(made, items, strict=True)
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job") / "out"
    spec = replace(SPEC, items_per_part=NUM_ROWS // NUM_PARTS)
    commit_job(LocalStore(str(folder)), parts=tuple(range(NUM_PARTS)), rows=rows(), spec=spec)
    return folder


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["lines", "json"])
def test_every_row_is_shown_unless_fewer_are_asked_for(
    as_json: list[str], out: Path, vidray: Vidray
) -> None:
    assert len(vidray("show", out, *as_json)[1].splitlines()) == NUM_ROWS
    assert len(vidray("show", out, *as_json, "--limit", 5)[1].splitlines()) == 5


def test_a_reader_that_has_seen_enough_ends_it_without_a_word(out: Path) -> None:
    shown = subprocess.Popen(
        [VIDRAY, "show", out, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert shown.stdout is not None
    assert shown.stderr is not None
    assert json.loads(shown.stdout.readline())["uri"] == "/videos/clip0.mp4"
    shown.stdout.close()
    assert shown.stderr.read() == b""
    shown.stderr.close()
    assert shown.wait(60) == 1


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_terminal_rows_go_through_the_readers_pager(out: Path, width: int) -> None:
    code, screen = on_a_terminal("show", out, width=width, PAGER="sed s/^/paged:/")
    assert code == 0
    assert screen.count("paged:/videos/clip") == NUM_ROWS


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        (["--failed"], 6),
        (["--code", "truncated"], 6),
        (["--code", "not_found"], 0),
        (["--search", "CLIP17.mp4"], 1),
        (["--search", "a red circle STAYS"], NUM_ROWS - 6),
        (["--search", "clip7", "--failed"], 1),
        (["--search", "half of it", "--limit", "2"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_rows_are_chosen_by_failure_code_and_text(
    chosen: list[str], count: int, out: Path, vidray: Vidray
) -> None:
    code, said, noted = vidray("show", out, *chosen)
    assert (code, len(said.splitlines())) == (0, count)
    assert noted == ("" if count else "no row is like that\n")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["clip17.mp3"], "no row of 'clip17.mp3'; did you mean clip17.mp4?"),
        (["videos/clp20.mp4"], "did you mean clip20.mp4?"),
        (["CLIP21.MP4"], "did you mean clip21.mp4?"),
        (["--limit", "0"], "vidray: --limit must be at least 1, got 0"),
        (["--limit", "few"], "vidray: --limit must be a whole number, got few"),
        (
            ["--code", "truncted"],
            "--code must be a failure code, got 'truncted'; did you mean trun",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("command", ["show", "replay"])
def test_a_mistyped_name_is_answered_with_the_nearest_one(
    command: str, asked: list[str], says: str, out: Path, vidray: Vidray
) -> None:
    if command == "replay" and asked[0].startswith("--"):
        return
    code, _, said = vidray(command, out, *asked)
    assert code == 2
    assert says in said


def test_a_job_that_has_made_nothing_yet_says_so(tmp_path: Path, vidray: Vidray) -> None:
    commit_job(LocalStore(str(tmp_path / "new")), parts=(), rows=rows())
    code, said, noted = vidray("show", tmp_path / "new")
    assert (code, said) == (0, "")
    assert noted == f"no rows yet; vidray batch status {tmp_path}/new says what is missing\n"


def test_people_get_three_digits_and_short_digests_and_json_all_of_them(
    out: Path, vidray: Vidray
) -> None:
    _, said, _ = vidray("show", out, "clip0.mp4")
    assert "model_digest 0123456789ab, " in said
    assert "windows 1" in said
    _, said, _ = vidray("show", out, "clip0.mp4", "--json")
    assert json.loads(said)["provenance"]["model_digest"] == "0123456789abcdef" * 4
