"""`vidray soak kills`: a job's driver is killed at random moments until it has had enough of them.

After each kill a reader looks at what is committed; jobs that finish must equal one that nobody
disturbed, row by row.
"""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.demo.demo_archive import make_archive
from jobs.exits import Exit
from jobs.lab.bench.s3_server import BUCKET, KEYS, S3Server, is_installed
from jobs.models import demo_model
from pipeline.errors import VidrayError
from pipeline.store.commit import load_success, part_key
from pipeline.store.fsck import fsck
from pipeline.store.objects import ObjectStore
from pipeline.store.open import open_store
from pipeline.store.rows import committed_parts, read_rows
from pipeline.store.s3_config import S3Config
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


@dataclass(frozen=True, slots=True)
class Place:
    """Where the jobs write: below a folder, or below a prefix of a bucket."""

    base: str
    config: S3Config | None = None

    def out(self, name: str) -> str:
        return f"{self.base}/{name}"

    def store(self, name: str) -> ObjectStore:
        return open_store(self.out(name), self.config)

    @property
    def environment(self) -> dict[str, str]:
        if self.config is None:
            return {}
        return {"AWS_ENDPOINT_URL": self.config.endpoint, **KEYS}


@contextmanager
def _place(folder: Path, *, in_s3: bool) -> Iterator[Place]:
    """The folder, or a bucket of an S3 server that runs for as long, with its data there."""
    if not in_s3:
        yield Place(str(folder))
        return
    if not is_installed():
        raise VidrayError("there is no S3 server to start: --s3 wants the dev extra")
    server = S3Server(folder / f"s3-{time.time_ns()}")
    server.start()
    try:
        yield Place(f"s3://{BUCKET}/kills", server.config())
    finally:
        server.stop()


def run_kills(
    folder: Path,
    *,
    model: Path | None,
    num_kills: int,
    num_videos: int,
    seed: int,
    in_process: bool,
    in_s3: bool = False,
) -> int:
    """Returns the exit code; VidrayError tells the first promise that was broken, and the seed."""
    chance = random.Random(seed)  # noqa: S311 - it has to be repeatable
    clips = folder / "clips"
    make_archive(clips, num_videos - 1, seed)
    (clips / BAD_VIDEO).write_text("this is no video")
    command = [
        *(sys.executable, "-c", "from jobs.cli import main; main()", "batch", "run", str(clips)),
        *("--model", str(model or demo_model()), f"--videos-per-part={VIDEOS_PER_PART}"),
        *("--max-new-tokens=4", *(["--in-process"] if in_process else [])),
    ]
    soak, run = Soak(), uuid.uuid4().hex[:8]
    with _place(folder, in_s3=in_s3) as place:
        undisturbed = KilledJob("undisturbed", command, place, folder)
        if not undisturbed.is_finished:
            undisturbed.finish()
        expected = undisturbed.rows()
        while soak.num_kills < num_kills:
            job = KilledJob(f"job-{run}-{soak.num_jobs:03d}", command, place, folder)
            _kill_and_finish(job, soak, num_kills, chance)
            if job.rows() != expected:
                raise VidrayError(f"{job.out} differs from {undisturbed.out} (seed {seed})")
            soak.num_jobs += 1
    print(
        f"{soak.num_kills} kills over {soak.num_jobs} jobs of {num_videos} videos: every row once, "
        f"as in an undisturbed job; {soak.num_parts} parts outlived the driver that made them"
    )
    return Exit.OK


class KilledJob:
    """One output, its drivers, and what a reader finds in it."""

    def __init__(self, name: str, command: list[str], place: Place, folder: Path) -> None:
        self.out = place.out(name)
        self.events = folder / f"{name}.jsonl"
        self._command = command
        self._place = place
        self._store = place.store(name)

    @property
    def is_finished(self) -> bool:
        return load_success(self._store) is not None

    @property
    def num_events(self) -> int:
        return self.events.read_bytes().count(b"\n")

    def start(self) -> "subprocess.Popen[str]":
        self.events.touch()
        return subprocess.Popen(
            [*self._command, self.out, f"--events={self.events}"],
            env=os.environ | self._place.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> None:
        await_end(self.start(), Exit.SOME_FAILED)
        report = fsck(self._store, now_s=time.time())
        if not report.is_sound or not report.is_finished:
            raise VidrayError(f"{self.out}: fsck finds {report.problems or 'it unfinished'}")

    def parts(self) -> dict[str, str]:
        """Etags of the parts a reader finds now. VidrayError for a row that is there twice."""
        store = self._store
        columns = [table["video_id"] for table in read_rows(store, ["video_id"])]
        ids = [name for column in columns for name in column.to_pylist()]
        if len(set(ids)) != len(ids):
            raise VidrayError(f"{self.out}: a row is there twice")
        return {part_key(i): store.head(part_key(i)).etag for i in committed_parts(store)}

    def rows(self) -> list[dict[str, Any]]:
        """Records without what differs from run to run."""
        records = [
            asdict(record) for table in read_rows(self._store) for record in from_table(table)
        ]
        return [{key: value for key, value in row.items() if key != "timings"} for row in records]


def _kill_and_finish(job: KilledJob, soak: Soak, num_kills: int, chance: random.Random) -> None:
    """Start and kill until the job is finished or there were enough kills; then let it finish."""
    kept: dict[str, str] = {}
    while soak.num_kills < num_kills:
        was_killed = _kill_somewhere(job, chance)
        parts = job.parts()
        if not kept.items() <= parts.items():
            raise VidrayError(f"{job.out}: a committed part was made again")
        kept = parts
        if not was_killed:
            break
        soak.num_kills += 1
        soak.num_parts += len(kept)
    job.finish()


def _kill_somewhere(job: KilledJob, chance: random.Random) -> bool:
    """Kill after a random number of events and a random moment; False if it was finished first."""
    driver = job.start()
    enough = job.num_events + chance.randrange(0, 8)
    deadline = time.monotonic() + PATIENCE_S
    while driver.poll() is None and job.num_events < enough and time.monotonic() < deadline:
        time.sleep(POLL_S)
    time.sleep(chance.uniform(0, 0.3))
    driver.kill()
    return await_end(driver, Exit.SOME_FAILED, -signal.SIGKILL) == -signal.SIGKILL


def await_end(driver: "subprocess.Popen[str]", *codes: int) -> int:
    """How it ended. VidrayError with its last words if that is by none of these exit codes.

    A finished driver's is SOME_FAILED, as one video is bad.
    """
    _, said = driver.communicate(timeout=PATIENCE_S)
    if driver.returncode not in codes:
        last = (said.strip().splitlines() or ["nothing"])[-1]
        raise VidrayError(f"the driver ended by itself, with {driver.returncode}, and said: {last}")
    return driver.returncode
