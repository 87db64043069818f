"""One table of exit codes, told in README and in --help, and the same in every command."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jobs.exits import MEANINGS, Exit
from tests.conftest import Vidray
from tests.media_factory import Clip, make
from tests.terminal import VIDRAY, on_a_terminal

ROOT = Path(__file__).parents[2]


def test_readme_has_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {int(code): text for code, text in rows} == MEANINGS


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_it_at_any_width(flag: str, width: int) -> None:
    code, screen = on_a_terminal(flag, width=width)
    assert code == 0
    words = " ".join(screen.split())
    for number, text in MEANINGS.items():
        assert f"{number:d} {text}" in words
    assert "\N{HORIZONTAL ELLIPSIS}" not in screen
    assert max(map(len, screen.splitlines())) <= width


@pytest.mark.parametrize("group", [(), ("batch",), ("model",), ("profile",)], ids=" ".join)
def test_where_a_command_is_missing_help_is_shown_in_its_lines(
    group: tuple[str, ...], vidray: Vidray
) -> None:
    code, said, told = vidray(*group)
    assert (code, said) == (Exit.MISUSED, "")
    first, *rest = told.splitlines()
    assert first.startswith("Usage: ")
    assert first.endswith(" ".join(("vidray", *group, "[OPTIONS] COMMAND [ARGS]...")))
    assert len(rest) > 5


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    "asked", [("--version",), ("analyze", "-h"), ("batch", "run", "-h"), ("formats",)], ids=" ".join
)
def test_what_is_asked_for_fits_the_terminal(asked: tuple[str, ...], width: int) -> None:
    code, screen = on_a_terminal(*asked, width=width)
    assert code == 0
    assert screen.strip()
    if asked != ("formats",):
        assert max(map(len, screen.splitlines())) <= width
        assert "\N{HORIZONTAL ELLIPSIS}" not in screen


@pytest.mark.parametrize("width", [60, 80, 120])
def test_completion_of_a_narrow_terminals_shell_is_whole(width: int) -> None:
    asked = {
        "_VIDRAY_COMPLETE": "complete_bash",
        "COMP_WORDS": "vidray batch run --gr",
        "COMP_CWORD": "3",
        "COLUMNS": str(width),
    }
    said = subprocess.run(
        [VIDRAY], env=os.environ | asked, capture_output=True, text=True, timeout=60, check=True
    )
    assert set(said.stdout.split()) == {"--ground", "--grace"}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    return make(tmp_path / "clips", Clip(num_frames=6))


NOWHERE = "/dev/null/place"  # may be written by nobody, root included


@pytest.mark.parametrize(
    "command",
    [
        "analyze CLIP --in-process --model MODEL --ground it --out NOWHERE",
        "analyze CLIP --in-process --model MODEL --out NOWHERE/rows.csv",
        "analyze CLIP --in-process --model MODEL --trace NOWHERE",
        "analyze CLIP --in-process --model MODEL --log-file NOWHERE",
        "batch run CLIP OUT --in-process --model MODEL --events NOWHERE",
        "batch run CLIP OUT --in-process --model MODEL --log-file NOWHERE",
        "batch run CLIP NOWHERE --in-process --model MODEL",
        "batch run CLIP /proc/place --in-process --model MODEL",
        "batch run CLIP CLIP --in-process --model MODEL",
        "demo --in-process --out NOWHERE",
        "trace CLIP NOWHERE",
    ],
)
def test_a_place_that_may_not_be_written_is_misuse_in_every_command(
    command: str, clip: Path, model: Path, vidray: Vidray
) -> None:
    places = {"CLIP": clip, "MODEL": model, "OUT": clip.parent.parent / "out"}
    typed = [str(places.get(word, word)).replace("NOWHERE", NOWHERE) for word in command.split()]
    code, _, said = vidray(*typed)
    assert code == Exit.MISUSED, said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("command", "folder"), [("tables OUT", "tables"), ("fsck OUT --repair", "damaged")]
)
def test_so_is_a_folder_of_an_output(
    command: str, folder: str, vidray: Vidray, tmp_path: Path
) -> None:
    out = shutil.copytree(ROOT / "tests" / "outputs" / "schema-1", tmp_path / "out")
    if folder == "damaged":
        next(out.glob("parts/*")).write_bytes(b"junk")
    (out / folder).symlink_to("/sys/kernel")  # takes no folders from anybody, root included
    code, _, said = vidray(*command.replace("OUT", str(out)).split())
    assert code == Exit.MISUSED, said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("analyze CLIP --in-process --model MODEL --out {}", ".rows.parquet.partial"),
        ("analyze CLIP --in-process --model MODEL --out {}", ".rows.csv.partial"),
        ("analyze CLIP --in-process --model MODEL --trace {}", "trace.json"),
        ("batch run CLIP OUT --in-process --model MODEL --events {}", "events.jsonl"),
        ("report OUTPUT --page {}", "page.html.partial"),
    ],
)
def test_a_full_disk_is_told_with_the_file_that_it_cuts_short(
    command: str, file: str, clip: Path, model: Path, vidray: Vidray, tmp_path: Path
) -> None:
    (tmp_path / file).symlink_to("/dev/full")
    named = tmp_path / file.removeprefix(".").removesuffix(".partial")
    output = ROOT / "tests" / "outputs" / "schema-1"
    places = {"CLIP": clip, "MODEL": model, "OUT": tmp_path / "out", "OUTPUT": output}
    typed = command.replace("{}", str(named)).split()
    code, said, told = vidray(*(places.get(word, word) for word in typed))
    assert code == Exit.FAILED
    assert told.endswith(f"vidray: {named}: No space left on device\n")
    if "--out" in command:
        assert f"{clip}: caption: " in said  # what was found out is not lost with it
    assert list(tmp_path.glob("*.partial")) == []


def test_a_full_disk_ends_a_log_and_nothing_else(clip: Path, model: Path, vidray: Vidray) -> None:
    command = ("analyze", clip, "--in-process", "--model", model, "--log-file", "/dev/full")
    code, said, told = vidray(*command)
    assert (code, "Traceback" in told) == (Exit.OK, False)
    assert told.count("--log-file /dev/full ends here: [Errno 28] No space left on device\n") == 1
    assert said


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            "analyze FOLDER",
            "is a folder: for a row of every video in it, vidray batch run FOLDER OUT",
        ),
        ("analyze s3://bucket/a.mp4", "s3://bucket/a.mp4 is in S3: for a row of every video in it"),
        ("analyze https://host/a.mp4", "vidray: https://host/a.mp4 is no file of this machine; "),
        ("batch run gs://b/a OUT --model MODEL", "vidray: gs://b/a is neither a path nor s3://"),
        ("report CLIP", "is a file: a report is made of a job's output"),
        ("show CLIP", "is a file, not a job's output: vidray batch run writes one"),
        ("fsck FOLDER", "holds no job: it has no plan.json"),
        ("batch run FOLDER OUT --model MODEL --min-bytes 2 --max-bytes 1", "--min-bytes must be"),
        ("batch run FOLDER OUT --model MODEL --job-id a/b", "--job-id must be 1 to 64 letters"),
        ("analyze CLIP --quiet --verbose", "--quiet and --verbose exclude each other"),
        ("analyze CLIP --out rows.xlsx", "rows go to .parquet, .csv, .jsonl"),
        ("analyze CLIP --model /nope", "/nope: not a model folder"),
        ("analyze CLIP --in-process --model vidrya-demo", "did you mean vidray-demo?"),
        ("report nowhere", "there is no folder or file nowhere"),
        ("show nowhere/out", "there is no folder or file nowhere/out"),
        ("batch run", "SRC is missing"),
        ("batch run FOLDER", "OUT is missing"),
        ("plan", "SRC is missing"),
    ],
)
def test_a_misunderstanding_is_answered_with_what_was_typed_and_what_to_type(
    command: str, says: str, clip: Path, model: Path, vidray: Vidray
) -> None:
    places = {"CLIP": clip, "FOLDER": clip.parent, "MODEL": model, "OUT": clip.parent.parent / "o"}
    code, _, said = vidray(*(str(places.get(word, word)) for word in command.split()))
    assert code == Exit.MISUSED
    assert says.replace("FOLDER", str(clip.parent)) in said
    assert len([line for line in said.splitlines() if line.startswith("vidray: ")]) == 1


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ("decoders: {tensor_parallel: 0}", "decoders.tensor_parallel must be at least 1, got 0"),
        ("decoders: {num_cpus: many}", "decoders.num_cpus must be a number, got many"),
        ("decoder: {}", "there is no decoder"),
        ("device: tpu", "device must be 'cpu' or 'cuda', got tpu"),
        ("[1, 2]", "it must hold named values, got [1, 2]"),
        ("decoders: {kv_tokens: 100}", "question_tokens must be at most kv_tokens"),
        ("limits: {max_bytes: 0}", "limits.max_bytes must be at least 1, got 0"),
    ],
)
def test_a_wrong_profile_is_told_in_its_own_words(
    profile: str, says: str, clip: Path, model: Path, vidray: Vidray
) -> None:
    file = clip.parent / "mine.yaml"
    file.write_text(profile)
    code, _, said = vidray("analyze", clip, "--model", model, "--profile", file)
    assert code == Exit.MISUSED
    assert says in said
    assert "nput should" not in said


def test_a_failure_is_told_once(clip: Path, model: Path, vidray: Vidray) -> None:
    bad = clip.with_name("bad.mp4")
    bad.write_text("no video")
    code, said, progress = vidray("analyze", bad, "--model", model, "--in-process")
    assert code == Exit.SOME_FAILED
    assert (said + progress).count("not_a_video") == 1
    code, screen = on_a_terminal("analyze", bad, "--model", model, "--in-process", width=120)
    assert code == Exit.SOME_FAILED
    assert screen.count("not_a_video") == 1
