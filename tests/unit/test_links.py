"""Symlinked videos, as DVC, git-annex and hub caches keep them, are videos like any other."""

import os
from pathlib import Path

import pytest

from pipeline.store.local import LocalStore
from pipeline.store.rows import read_rows
from tests.conftest import Vidray
from tests.media_factory import Clip, make


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Links to contents that have no suffix, in a cache beside the folder, and odd ones."""
    cache, folder = tmp_path / "cache", tmp_path / "clips"
    (cache / "ab").mkdir(parents=True)
    (folder / ".git").mkdir(parents=True)
    make(cache, Clip(num_frames=6)).rename(cache / "ab" / "cdef0123")
    (folder / "dvc.mp4").symlink_to(cache / "ab" / "cdef0123")
    (folder / "hub.mp4").symlink_to("../cache/ab/cdef0123")
    (folder / "twice.mp4").symlink_to("hub.mp4")
    make(folder, Clip(num_frames=6), "plain")
    (folder / ".git" / "annexed.mp4").symlink_to("../plain.mp4")
    return folder


def outcomes(out: Path) -> dict[str, str]:
    """By the name of the video: "ok", or why it failed."""
    rows = [row for table in read_rows(LocalStore(str(out))) for row in table.to_pylist()]
    return {row["uri"].rpartition("/")[2]: row["detail"] or "ok" for row in rows}


JOB = ("--in-process", "--max-new-tokens", 4)


def test_links_to_files_are_read_and_hidden_names_passed_by(
    clips: Path, model: Path, vidray: Vidray
) -> None:
    out = clips.parent / "out"
    code, _, said = vidray("batch", "run", clips, out, "--model", model, *JOB)
    assert code == 0, said
    assert outcomes(out) == dict.fromkeys(("dvc.mp4", "hub.mp4", "plain.mp4", "twice.mp4"), "ok")
    code, _, said = vidray(
        "batch", "run", clips, clips.parent / "all", "--model", model, *JOB, "--hidden"
    )
    assert code == 0, said
    assert outcomes(clips.parent / "all")["annexed.mp4"] == "ok"


def test_odd_links_are_refused_by_name_and_cost_their_own_row(
    clips: Path, model: Path, vidray: Vidray
) -> None:
    (clips / "circle.mp4").symlink_to("circle.mp4")
    (clips / "gone.mp4").symlink_to("nowhere")
    (clips / "null.mp4").symlink_to("/dev/null")
    os.mkfifo(clips.parent / "fifo")
    (clips / "pipe.mp4").symlink_to("../fifo")
    out = clips.parent / "out"
    code, _, said = vidray("batch", "run", clips, out, "--model", model, *JOB, "--link-root", clips)
    assert code == 3, said
    outside = "a link that ends outside the folders that links may lead to"
    odd = "a link that ends at a folder, pipe or device, not at a file"
    assert outcomes(out) == {
        "circle.mp4": "a link that leads in a circle",
        "dvc.mp4": outside,
        "gone.mp4": "a link that leads to nothing",
        "hub.mp4": outside,
        "null.mp4": odd,
        "pipe.mp4": odd,
        "plain.mp4": "ok",
        "twice.mp4": outside,
    }


def test_within_a_root_that_was_named_links_are_read(
    clips: Path, model: Path, vidray: Vidray
) -> None:
    out = clips.parent / "out"
    roots = ("--link-root", "/no/such", "--link-root", clips.parent / "cache")
    code, _, said = vidray("batch", "run", clips, out, "--model", model, *JOB, *roots)
    assert code == 0, said
    assert "identical" in vidray("replay", out, "dvc.mp4", "--model", model)[1]


def test_links_that_may_end_nowhere_are_refused(clips: Path, model: Path, vidray: Vidray) -> None:
    out = clips.parent / "out"
    roots = ("--link-root", "/no/such")
    code, _, said = vidray("batch", "run", clips, out, "--model", model, *JOB, *roots)
    assert (code, "there is no folder /no/such, which --link-root names" in said) == (2, True)
    assert not out.exists()


@pytest.mark.parametrize("source", ["dvc.mp4", "list.txt", "d*.mp4"])
def test_a_link_may_be_the_source_itself_and_stand_in_a_list(
    source: str, clips: Path, model: Path, vidray: Vidray
) -> None:
    (clips / "list.txt").write_text("dvc.mp4\n")
    out = clips.parent / "out"
    code, _, said = vidray("batch", "run", clips / source, out, "--model", model, *JOB)
    assert code == 0, said
    assert outcomes(out) == {"dvc.mp4": "ok"}


def test_analyze_reads_a_link_too(clips: Path, model: Path, vidray: Vidray) -> None:
    (clips / "circle.mp4").symlink_to("circle.mp4")
    paths = (clips / "twice.mp4", clips / "circle.mp4")
    code, said, _ = vidray("analyze", *paths, "--model", model, *JOB)
    assert code == 3
    assert f"{clips}/twice.mp4: caption: " in said
    assert f"{clips}/circle.mp4: failed: not_a_regular_file: a link that leads in a circle" in said
