"""Names that are not UTF-8 are read like any other, and never end another video's work."""

import json
import os
from pathlib import Path

import pytest

from pipeline.names import as_bytes, as_text, from_bytes
from pipeline.store.items import Item, items_to_table, table_to_items
from pipeline.store.local import LocalStore
from pipeline.store.rows import read_rows
from pipeline.store.sources import find_items
from tests.batch_runs import vidray as run_vidray
from tests.conftest import Vidray
from tests.media_factory import Clip, make
from tests.terminal import on_a_terminal

ODD = os.fsdecode(b"caf\xe9.mp4")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    make(folder, Clip(num_frames=6), "good")
    make(folder, Clip(num_frames=6)).rename(folder / ODD)
    return folder


def test_a_name_is_bytes_and_shown_as_text() -> None:
    assert as_bytes(ODD) == b"caf\xe9.mp4"
    assert from_bytes(as_bytes(ODD)) == ODD
    assert as_text(ODD) == "caf\\xe9.mp4"
    assert as_text("café.mp4") == "café.mp4"
    assert as_text("\ud800") == "\\ud800"


@pytest.mark.parametrize("suffix", ["", ".txt"])
def test_a_listing_and_a_manifest_give_them_as_they_are(suffix: str, clips: Path) -> None:
    source = clips
    if suffix:
        source = clips.parent / f"list{suffix}"
        source.write_bytes(b"clips/caf\xe9.mp4\nclips/good.mp4\n")
    items = list(find_items(str(source)))
    assert [item.uri for item in items] == [f"{clips}/{ODD}", f"{clips}/good.mp4"]
    assert list(table_to_items(items_to_table(items))) == items


def test_a_plan_of_before_has_no_bytes_of_names() -> None:
    table = items_to_table([Item(uri="/a.mp4")]).drop_columns(["uri_bytes"])
    assert list(table_to_items(table)) == [Item(uri="/a.mp4")]


def test_such_a_video_is_a_row_of_a_job_and_found_by_its_name(
    clips: Path, model: Path, vidray: Vidray
) -> None:
    out = clips.parent / "out"
    job = ("--model", model, "--in-process", "--max-new-tokens", 4)
    code, said, _ = vidray("batch", "run", clips, out, *job)
    assert (code, "2 videos, 0 failed" in said) == (0, True)
    uris = [uri for table in read_rows(LocalStore(str(out))) for uri in table["uri"].to_pylist()]
    assert uris == [f"{clips}/caf\\xe9.mp4", f"{clips}/good.mp4"]
    for name in (ODD, "caf\\xe9.mp4"):
        assert vidray("show", out, name)[1].startswith(f"{clips}/caf\\xe9.mp4")
    assert "identical" in vidray("replay", out, ODD, "--model", model)[1]
    assert vidray("report", out, "--page", clips.parent / "page.html")[0] == 0


@pytest.mark.parametrize("where", [["--in-process"], []], ids=["in process", "over Ray"])
def test_good_clips_beside_such_a_name_are_analysed(
    where: list[str], clips: Path, model: Path
) -> None:
    """By a process of its own: Ray looks at the command line of whoever starts it."""
    paths = [clips / "good.mp4", clips / ODD, clips / os.fsdecode(b"n\xff.mp4")]
    flags = ("--model", model, "--json", "--max-new-tokens", 4, *where)
    done = run_vidray("analyze", *paths, *flags)
    assert done.returncode == 3, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    outcomes = [(row["uri"], row["code"]) for row in rows]
    assert outcomes == [
        (f"{clips}/good.mp4", None),
        (f"{clips}/caf\\xe9.mp4", None),
        (f"{clips}/n\\xff.mp4", "not_found"),
    ]


def test_a_terminal_is_shown_such_a_name(clips: Path, model: Path) -> None:
    asked = ("--model", model, "--in-process", "--max-new-tokens", 4)
    code, screen = on_a_terminal("analyze", clips / ODD, *asked)
    assert code == 0, screen
    assert "Traceback" not in screen


@pytest.mark.parametrize("key", ["uri", "ask", "ground", "label"])
def test_a_lone_surrogate_of_a_manifest_is_told_by_its_line_or_kept_as_text(
    key: str, clips: Path, model: Path, vidray: Vidray
) -> None:
    row = {"uri": "clips/good.mp4"} | {key: "a\ud800.mp4"}
    (clips.parent / "list.jsonl").write_text(json.dumps(row))
    out = clips.parent / "out"
    job = ("--model", model, "--in-process", "--max-new-tokens", 4)
    code, _, said = vidray("batch", "run", clips.parent / "list.jsonl", out, *job)
    assert "Traceback" not in said
    if key == "label":
        assert code == 0
        return
    assert code == 2
    assert "manifest list.jsonl, line 1: " in said
