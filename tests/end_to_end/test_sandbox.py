"""Nothing that a decoder which was taken over tries succeeds, or it is said that it may."""

import json
import os
import platform
import subprocess
import sys
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from jobs.workplace import Recipe, Workplace
from pipeline.config import DecodeLimits
from pipeline.errors import BadInput
from pipeline.local import LocalFlow
from pipeline.video.confinement import MEASURES
from pipeline.video.libraries import is_installed
from pipeline.video.options import PlanOptions
from pipeline.video.reader import open_media
from pipeline.video.source import Source
from tests.escapes import ESCAPES
from tests.hostile import CASES
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

REFUSALS = {"EPERM", "EACCES", "ENOSYS", "killed"}

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the escapes are this machine's calls by number"
)


@cache
def attempts(place: str, folder: str, *names: str) -> tuple[set[str], dict[str, str]]:
    """The measures that hold in a place, and what came of every escape."""
    os.makedirs(folder)
    command = [sys.executable, "-m", "tests.places", place, folder, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if "no user namespaces here" in done.stderr:
        pytest.skip("this machine makes no user namespaces")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return set(found["measures"]), found["outcomes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("escapes")


@pytest.mark.parametrize(
    "place", ["as it is", "for decord", "user namespace", "container", "old container"]
)
def test_no_escape_succeeds(place: str, folder: Path) -> None:
    if place == "for decord" and not is_installed("decord"):
        pytest.skip("decord has no wheel for this machine")
    measures, outcomes = attempts(place, str(folder / place))
    assert "seccomp" in measures
    if place == "for decord" and "landlock" not in measures:
        pytest.skip("without Landlock it may read files, as seccomp.py says")
    assert outcomes.keys() == ESCAPES.keys()
    assert {name: how for name, how in outcomes.items() if how not in REFUSALS} == {}


def test_what_could_not_be_had_is_named(folder: Path) -> None:
    names = ("read the reader's environment", "read the reader's memory", "trace")
    measures, outcomes = attempts("no seccomp", str(folder / "no seccomp"), *names)
    assert not measures & {"seccomp", "landlock"}
    assert "capabilities" in measures
    assert set(outcomes.values()) <= REFUSALS  # even then, since the reader hides
    assert attempts("old container", str(folder / "old container"))[0].isdisjoint({"landlock"})


def test_a_reader_keeps_its_memory_and_its_environment_from_its_own_user(folder: Path) -> None:
    """With no filter, and no rights to tell them apart, it is hidden all the same."""
    names = ("read the reader's environment", "read the reader's memory")
    measures, outcomes = attempts("no seccomp, no rights", str(folder / "bare"), *names)
    assert not measures & {"seccomp", "landlock"}
    assert outcomes.keys() == set(names)
    assert set(outcomes.values()) <= REFUSALS


def test_what_could_not_be_had_is_said_once_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def held(self: LocalFlow) -> tuple[str, ...]:
        return ("seccomp", "capabilities")

    monkeypatch.setattr(LocalFlow, "sandbox", held)
    said = Console(file=StringIO(), width=200)
    recipe = Recipe(checkpoint=write_folder(tmp_path), options=PlanOptions())
    with Workplace(in_process=True).opened(recipe, said):
        pass
    message = "Decoders of videos are held without landlock, network here"
    assert said.file.getvalue().count(message) == 1


def test_a_video_says_what_held_its_decoder_and_so_does_its_failure(tmp_path: Path) -> None:
    path = make(tmp_path, Clip(num_frames=6))
    with open_media(Source.of(path), DecodeLimits()) as media:
        held = media.sandbox
    assert {"seccomp"} <= set(held) <= set(MEASURES)
    bad = CASES["half an mp4"].build(tmp_path)
    with pytest.raises(BadInput) as raised, open_media(Source.of(bad)):
        pass
    assert raised.value.sandbox == held
