"""Where faults are played: an archive, a model, a store, and jobs that run on them as processes."""

import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml

from jobs.demo.demo_archive import make_archive
from jobs.exits import Exit
from jobs.lab.bench.s3_server import BUCKET, KEYS, S3Server, is_installed
from jobs.lab.soak.hurt_store import HurtStore
from jobs.lab.soak.trial import shared_memory
from jobs.lab.soak.two_nodes import Nodes, two_nodes
from pipeline.errors import VidrayError
from pipeline.store.fsck import fsck
from pipeline.store.open import open_store
from pipeline.store.rows import read_rows
from pipeline.tasks.records import from_table

MARK = "VIDRAY_SOAK"  # in the environment of everything that a stage starts
BAD_VIDEO = "clip-bad.mp4"
VIDEOS_PER_PART = 3
LAST_S = 30.0  # for processes to end after their driver
MAIN = (sys.executable, "-c", "from jobs.cli import main; main()")

Rows = list[dict[str, Any]]


@dataclass(slots=True, kw_only=True)
class Stage:
    """Made by open_stage. scale: of all times that a profile and a job have by default."""

    folder: Path
    clips: Path
    model: Path
    scale: float
    server: S3Server | None
    expected: dict[str, Rows] = field(default_factory=dict)  # by source, undisturbed

    @property
    def stall_s(self) -> float:
        return 120.0 * self.scale

    @property
    def patience_s(self) -> float:
        return 600.0 * self.scale

    def profile(self, **more: Any) -> Path:
        """A small fleet with the default attempts, and times scaled. more: other settings."""
        settings = {
            "name": "soak",
            "stall_s": self.stall_s,
            "recover_s": self.patience_s,
            "limits": {"wall_s": 600.0 * self.scale},
            "videos_in_flight": 2,
            "readers": {"num_cpus": 0.1},
            "encoders": {"num_cpus": 0.1, "num_threads": 1},
            "decoders": {"num_cpus": 0.1, "num_threads": 1, "kv_tokens": 32_768},
        } | more
        path = self.folder / f"profile-{uuid.uuid4().hex[:8]}.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path


@dataclass(slots=True, kw_only=True)
class Play:
    """One job and what befalls it. environment: of its drivers."""

    stage: Stage
    source: str
    out: Path
    options: tuple[str, ...]
    environment: dict[str, str]
    store: HurtStore | None = None
    nodes: Nodes | None = None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    _seen: set[psutil.Process] = field(default_factory=set)
    _driver: "subprocess.Popen[str] | None" = None

    @property
    def copies(self) -> Path:
        return copies_of(self.out)

    @property
    def driver(self) -> "subprocess.Popen[str]":
        if self._driver is None:
            raise VidrayError("the job was not started")
        return self._driver

    @property
    def is_running(self) -> bool:
        return self.driver.poll() is None

    def start(self, *options: str) -> None:
        """Run the job, or go on with it."""
        self.copies.mkdir(exist_ok=True)
        self._events.touch()
        command = [
            *(*MAIN, "batch", "run", self.source, str(self.out), f"--model={self.stage.model}"),
            *("--max-new-tokens=4", f"--videos-per-part={VIDEOS_PER_PART}"),
            *(f"--patience={self.stage.patience_s}", f"--copies={self.copies}"),
            *(f"--events={self._events}", *self.options, *options),
        ]
        log = self.out.with_suffix(".log").open("a")
        with log:
            self._driver = subprocess.Popen(
                command,
                env=os.environ | {MARK: self.mark} | self.environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def until(self, event: str, times: int = 1) -> None:
        """Wait until the driver has told of this event so often."""
        self.wait(lambda: self.heard(event) >= times, f"{event} is not heard")

    def heard(self, event: str) -> int:
        lines = self._events.read_text().splitlines()
        return sum(f'"event": "{event}"' in line for line in lines)

    def wait(self, is_so: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + 2 * self.stage.patience_s + 120
        while not is_so():
            if not self.is_running or time.monotonic() > deadline:
                raise VidrayError(f"{otherwise}: {self.last_words()}")
            time.sleep(0.02)

    def until_over(self) -> int:
        """The driver's exit code."""
        return self.driver.wait(timeout=4 * self.stage.patience_s + 300)

    def last_words(self) -> str:
        said = self.out.with_suffix(".log").read_text().strip().splitlines()
        return said[-1] if said else "nothing"

    def processes(self, *words: str) -> list[psutil.Process]:
        """Of all that this job has started, those with one of these words in their command line."""
        return [each for each in self.started() if any(word in _title(each) for word in words)]

    def started(self) -> list[psutil.Process]:
        """All that were ever seen below its drivers, and still live."""
        for each in psutil.process_iter():
            if _mark(each) == self.mark:
                self._seen.add(each)  # and its children: those that decode have no environment
                with suppress(psutil.Error):
                    self._seen.update(each.children(recursive=True))
        return [each for each in self._seen if _lives(each)]

    def rows(self) -> Rows:
        return rows_of(self.out)

    def kill_decoder(self) -> None:
        """One of them, its first rank."""
        self.wait(lambda: bool(self.processes("LanguageDecoder")), "there is no decoder")
        self.processes("LanguageDecoder")[0].kill()

    def end(self) -> None:
        """Kill whatever is left."""
        for each in self.started():
            with suppress(psutil.NoSuchProcess):
                each.kill()

    @property
    def _events(self) -> Path:
        return self.out.with_suffix(".jsonl")


@contextmanager
def open_stage(folder: Path, *, model: Path, num_videos: int, scale: float) -> Iterator[Stage]:
    """Clips, one of them none, a model of its own, and an S3 server where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = folder / "clips"
    make_archive(clips, num_videos - 1, 0)
    (clips / BAD_VIDEO).write_text("this is no video")
    own_model = folder / "model"
    shutil.copytree(model, own_model, dirs_exist_ok=True)
    server = S3Server(folder / f"s3-{time.time_ns()}") if is_installed() else None
    try:
        if server is not None:
            server.start()
            store = open_store(f"s3://{BUCKET}/clips", server.config())
            for path in sorted(clips.iterdir()):
                store.put_new(path.name, path.read_bytes())
        yield Stage(folder=folder, clips=clips, model=own_model, scale=scale, server=server)
    finally:
        if server is not None:
            server.stop()


@contextmanager
def play(
    stage: Stage,
    name: str,
    *,
    in_s3: bool = False,
    profile: Mapping[str, Any] | None = None,
    options: Sequence[str] = (),
    nodes: Literal["one", "two", "one blind"] = "one",
) -> Iterator[Play]:
    """A job that is about to be run; at the end nothing of it is left.

    nodes: of a cluster that it joins; "one" is a Ray of its own, a blind one does not see the
    clips, or the copies of those in S3.
    """
    short = re.sub(r"[^a-z0-9]+", "-", name.lower())
    out = stage.folder / f"out-{short}-{uuid.uuid4().hex[:6]}"
    with ExitStack() as stack:
        environment: dict[str, str] = {"OMP_NUM_THREADS": "1"}
        store = None
        if in_s3:
            if stage.server is None:
                raise VidrayError("there is no S3 server to start: it comes with the dev extra")
            store = stack.enter_context(HurtStore(stage.server.port))
            environment |= {"AWS_ENDPOINT_URL": store.endpoint, "AWS_MAX_ATTEMPTS": "3", **KEYS}
        cluster = None
        if nodes != "one":
            hidden = copies_of(out) if in_s3 else stage.clips
            hidden.mkdir(exist_ok=True)
            is_blind = nodes == "one blind"
            cluster = stack.enter_context(two_nodes(hidden=hidden if is_blind else None))
            environment |= cluster.environment
            options = (*options, f"--address={cluster.address}")
        made = Play(
            stage=stage,
            source=f"s3://{BUCKET}/clips" if in_s3 else str(stage.clips),
            out=out,
            options=(f"--profile={stage.profile(**(profile or {}))}", *options),
            environment=environment,
            store=store,
            nodes=cluster,
        )
        stack.callback(made.end)
        yield made


def copies_of(out: Path) -> Path:
    """Where a job keeps copies of what is in S3."""
    return out.with_suffix(".copies")


def undisturbed(stage: Stage, *, in_s3: bool) -> Rows:
    """The rows of a job to which nothing happens; made once for each source."""
    place = "s3" if in_s3 else "folder"
    if place not in stage.expected:
        with play(stage, f"undisturbed {place}", in_s3=in_s3) as job:
            job.start()
            code = job.until_over()
            if code != Exit.SOME_FAILED:
                raise VidrayError(f"undisturbed, it ended with {code}: {job.last_words()}")
            stage.expected[place] = job.rows()
    return stage.expected[place]


def rows_of(out: Path) -> Rows:
    """The newest row of every video, by its uri, without what differs from run to run."""
    store = open_store(str(out))
    report = fsck(store, now_s=0)
    if not report.is_sound:
        raise VidrayError(f"{out}: fsck finds {report.problems}")
    records = [asdict(record) for table in read_rows(store) for record in from_table(table)]
    rows = [{key: value for key, value in row.items() if key != "timings"} for row in records]
    return sorted(rows, key=lambda row: str(row["uri"]))


def left_behind(job: Play, shared_before: set[str]) -> list[str]:
    """Processes, copies and shared memory that outlived the job."""
    deadline = time.monotonic() + LAST_S
    while (left := _left(job, shared_before)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _left(job: Play, shared_before: set[str]) -> list[str]:
    processes = [f"process {each.pid} {_title(each)[:40]}" for each in job.started()]
    copies = [f"copy {path.name}" for path in job.copies.rglob("*") if path.is_file()]
    return processes + copies + sorted(shared_memory() - shared_before)


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""
