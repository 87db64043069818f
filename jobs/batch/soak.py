"""`vidray soak kills`: a job's driver is killed at random moments until it has had enough of them.

After each kill a reader looks at what is committed; jobs that finish must equal one that nobody
disturbed, row by row.
"""

import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.analyze import demo_model
from jobs.demo_model.archive import make_archive
from jobs.exits import Exit
from pipeline.errors import VidrayError
from pipeline.store.commit import SUCCESS_KEY, part_key
from pipeline.store.fsck import fsck
from pipeline.store.objects import ObjectStore
from pipeline.store.open import open_store
from pipeline.store.rows import committed_parts, read_rows
from pipeline.tasks.records import from_table

POLL_S = 0.005
PATIENCE_S = 900.0  # of one whole run
VIDEOS_PER_PART = 3
BAD_VIDEO = "clip-bad.mp4"


@dataclass(slots=True)
class Soak:
    """What came of it."""

    num_kills: int = 0
    num_jobs: int = 0
    num_parts: int = 0  # that a killed driver had committed, and that were kept


def run_kills(
    folder: Path,
    *,
    model: Path | None,
    num_kills: int,
    num_videos: int,
    seed: int,
    in_process: bool,
) -> int:
    """Returns the exit code; VidrayError tells the first promise that was broken, and the seed."""
    chance = random.Random(seed)  # noqa: S311 - it has to be repeatable
    clips = folder / "clips"
    make_archive(clips, num_videos - 1, seed)
    (clips / BAD_VIDEO).write_text("this is no video")
    place = ["--in-process"] if in_process else []
    command = [
        *(sys.executable, "-c", "from jobs.cli import main; main()", "batch", "run", str(clips)),
        *("--model", str(model or demo_model()), f"--videos-per-part={VIDEOS_PER_PART}"),
        *("--max-new-tokens=4", *place),
    ]
    expected = _undisturbed(command, folder / "undisturbed")
    soak = Soak()
    while soak.num_kills < num_kills:
        out = folder / f"job-{soak.num_jobs:03d}"
        _one_job(command, out, soak, num_kills, chance)
        if _rows(open_store(str(out))) != expected:
            raise VidrayError(f"{out} differs from {folder / 'undisturbed'} (seed {seed})")
        shutil.rmtree(out)
        soak.num_jobs += 1
    print(
        f"{soak.num_kills} kills over {soak.num_jobs} jobs of {num_videos} videos: every row once, "
        f"as in an undisturbed job; {soak.num_parts} parts outlived the driver that made them"
    )
    return Exit.OK


def _undisturbed(command: list[str], out: Path) -> list[dict[str, Any]]:
    if not (out / SUCCESS_KEY).exists():
        await_end(_start(command, out), Exit.SOME_FAILED)
    return _rows(open_store(str(out)))


def _one_job(
    command: list[str], out: Path, soak: Soak, num_kills: int, chance: random.Random
) -> None:
    """Start and kill until the job is finished or there were enough kills; then let it finish."""
    kept: dict[str, str] = {}
    while soak.num_kills < num_kills:
        driver = _start(command, out)
        was_killed = _kill_somewhere(driver, out, chance)
        parts = _looked_at(out)
        if not kept.items() <= parts.items():
            raise VidrayError(f"{out}: a committed part was made again")
        kept = parts
        if not was_killed:
            break
        soak.num_kills += 1
        soak.num_parts += len(kept)
    await_end(_start(command, out), Exit.SOME_FAILED)
    report = fsck(open_store(str(out)), now_s=time.time())
    if not report.is_sound or not report.is_finished:
        raise VidrayError(f"{out}: fsck finds {report.problems or 'it unfinished'}")


def _kill_somewhere(driver: "subprocess.Popen[str]", out: Path, chance: random.Random) -> bool:
    """Kill after a random number of events and a random moment; False if it was finished first."""
    log = _events(out)
    enough = _num_lines(log) + chance.randrange(0, 8)
    deadline = time.monotonic() + PATIENCE_S
    while driver.poll() is None and _num_lines(log) < enough and time.monotonic() < deadline:
        time.sleep(POLL_S)
    time.sleep(chance.uniform(0, 0.3))
    driver.kill()
    return await_end(driver, Exit.SOME_FAILED, -signal.SIGKILL) == -signal.SIGKILL


def _looked_at(out: Path) -> dict[str, str]:
    """Etags of the parts a reader finds now. VidrayError for a row that is torn or there twice."""
    store = open_store(str(out))
    columns = [table["video_id"] for table in read_rows(store, ["video_id"])]
    ids = [name for column in columns for name in column.to_pylist()]
    if len(set(ids)) != len(ids):
        raise VidrayError(f"{out}: a row is there twice")
    return {part_key(index): store.head(part_key(index)).etag for index in committed_parts(store)}


def _rows(store: ObjectStore) -> list[dict[str, Any]]:
    """Records without what differs from run to run."""
    records = [asdict(record) for table in read_rows(store) for record in from_table(table)]
    return [{key: value for key, value in row.items() if key != "timings"} for row in records]


def _start(command: list[str], out: Path) -> "subprocess.Popen[str]":
    _events(out).touch()
    return subprocess.Popen(
        [*command, str(out), f"--events={_events(out)}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def await_end(driver: "subprocess.Popen[str]", *codes: int) -> int:
    """How it ended. VidrayError with its last words if that is by none of these exit codes.

    A finished driver's is SOME_FAILED, as one video is bad.
    """
    _, said = driver.communicate(timeout=PATIENCE_S)
    if driver.returncode not in codes:
        last = (said.strip().splitlines() or ["nothing"])[-1]
        raise VidrayError(f"the driver ended by itself, with {driver.returncode}, and said: {last}")
    return driver.returncode


def _events(out: Path) -> Path:
    return out.with_suffix(".jsonl")


def _num_lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")
