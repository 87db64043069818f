"""Every command of these pages runs as it stands there, in the order of the page."""

import glob
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import cli
from jobs.exits import Exit
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

ROOT = Path(__file__).parents[2]
PAGES = ("first-five-minutes", "operations", "security", "performance")
ELSEWHERE = {"make demo"}  # tests/end_to_end/test_demo.py; what it leaves is here
INSTEAD = {"--metrics 9400": "--metrics 0"}
IN_PROCESS = ("vidray analyze", "vidray batch run")  # with the same rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where somebody works: a clip, an archive with a bad video, a checkpoint, the demo's clips."""
    folder = tmp_path_factory.mktemp("place")
    for archive in (folder / "clips", folder / "out" / "demo" / "clips"):
        archive.mkdir(parents=True)
        make(archive, Clip(num_frames=12), "clip0")
        make(archive, Clip(num_frames=12), "clip1")
    (folder / "clips" / "bad.mp4").write_bytes(b"no video")
    make(folder, Clip(num_frames=12), "clip")
    write_folder(folder / "DIR")
    return folder


def commands(page: str) -> Iterator[str]:
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
        yield from filter(None, (line.partition(" #")[0].strip() for line in block.splitlines()))


def run(command: str) -> int:
    """Its exit code; vidray's own commands in this process, which has loaded everything."""
    for said, instead in INSTEAD.items():
        command = command.replace(said, instead)
    command = command.replace(".venv/bin/", "")
    command += " --in-process" * command.startswith(IN_PROCESS)
    words = [name for word in shlex.split(command) for name in sorted(glob.glob(word)) or [word]]
    if words[0] == "vidray":
        sys.argv = words
        try:
            return int(cli._run())
        except SystemExit as ended:
            return int(ended.code or 0)
    programs = {"python": sys.executable, "cp": shutil.which("cp")}
    return subprocess.run([programs[words[0]], *words[1:]], timeout=60, check=False).returncode


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_a_page_runs(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", sys.argv)
    found = list(commands((ROOT / f"docs/{name}.md").read_text("utf-8")))
    assert found
    if not (place / "out" / "plan.json").exists():
        assert run("vidray batch run clips out --model vidray-demo") == Exit.SOME_FAILED
    for command in [each for each in found if each not in ELSEWHERE]:
        assert run(command) in (Exit.OK, Exit.SOME_FAILED), (command, capfd.readouterr())
