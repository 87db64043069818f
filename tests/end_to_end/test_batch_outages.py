"""Jobs from S3 to S3 by the real command, while the server is killed or its answers are hurt."""

import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import AwsStandardS3RetryStrategy, FileSelector, S3FileSystem

from jobs.lab.bench.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server
from jobs.lab.soak.hurt_store import Harm
from pipeline.store.job_plan import load_plan
from pipeline.store.open import open_store
from tests.batch_runs import (
    DEADLINE_S,
    assert_complete,
    begin,
    end,
    heard,
    let_begin,
    until_heard,
    upload,
    vidray,
    words,
)
from tests.fault_proxy import FaultProxy
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

NUM_CLIPS = 24
NUM_PARTS = 8


@dataclass
class Job:
    """What the tests run, each to a place of its own, and the rows they must find there."""

    server: S3Server
    source: str
    model: Path
    expected: list[dict[str, Any]] = field(default_factory=list)

    def command(self, out: str, *more: object) -> tuple[object, ...]:
        return (self.source, out, "--model", self.model, "--videos-per-part", 3,
                "--max-new-tokens", 4, *more)  # fmt: skip

    def assert_undisturbed(self, out: str, reader: "Reader") -> None:
        """The rows are an undisturbed run's, and whoever read meanwhile saw nothing else."""
        store = open_store(out, self.server.config())
        assert_complete(store)
        assert words(store) == self.expected
        assert not reader.wrong
        assert NUM_CLIPS in reader.seen


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """On a server of its own, that may be killed."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "server")
    clips = tmp_path_factory.mktemp("clips")
    for number in range(NUM_CLIPS - 1):
        make(clips, Clip(num_frames=24), f"clip{number:02d}")
    (clips / "clip05b.mp4").write_text("this is no video")
    model = write_folder(tmp_path_factory.mktemp("model") / "tiny")
    try:
        server.start()
        job = Job(server, f"s3://{BUCKET}/clips", model)
        upload(clips, open_store(job.source, server.config()))
        out = f"s3://{BUCKET}/undisturbed"
        done = vidray("batch", "run", *job.command(out, "--in-process"), endpoint=server.endpoint)
        assert done.returncode == 3, done.stderr
        job.expected = words(open_store(out, server.config()))
        assert len(job.expected) == NUM_CLIPS
        yield job
    finally:
        server.stop()


@pytest.fixture
def out() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


class Reader(threading.Thread):
    """Looks at all visible parts again and again, as a user's pyarrow does, while entered."""

    def __init__(self, server: S3Server, out: str) -> None:
        super().__init__()
        self._bucket = S3FileSystem(
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            endpoint_override=server.endpoint,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=1),
            connect_timeout=2,
            request_timeout=10,
        )
        self._parts = f"{out.removeprefix('s3://')}/parts"
        self._is_over = threading.Event()
        self.seen: set[int] = set()  # numbers of rows
        self.wrong: list[str] = []

    def until_seen(self, num_rows: int) -> None:
        """Return when so many were there at a look."""
        while num_rows not in self.seen:
            assert not self.wrong
            time.sleep(0.05)

    def run(self) -> None:
        while not self._is_over.wait(0.05):
            self._look()
        for _ in range(20):  # a connection to the server before its death may break first
            if self._look():
                return

    def _look(self) -> bool:
        """Whether the server answered."""
        try:
            objects = self._download()
        except OSError:  # the server is dead
            return False
        try:
            tables = [pq.read_table(pa.BufferReader(data)) for data in objects]
        except (OSError, pa.ArrowException) as error:
            self.wrong.append(f"a part is torn: {error}")
            return True
        ids = [name for table in tables for name in table["video_id"].to_pylist()]
        if len(set(ids)) != len(ids):
            self.wrong.append("a row is there twice")
        if any(table.num_rows != NUM_CLIPS // NUM_PARTS for table in tables):
            self.wrong.append("a part is not whole")
        self.seen.add(len(ids))
        return True

    def _download(self) -> list[bytes]:
        objects = []
        for info in self._bucket.get_file_info(FileSelector(self._parts, allow_not_found=True)):
            with self._bucket.open_input_file(info.path) as file:
                objects.append(file.read())
            if len(objects[-1]) != info.size:
                raise OSError("the server died while it was read")
        return objects

    def __enter__(self) -> "Reader":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self.join(timeout=120)


def test_a_server_killed_and_restarted_mid_run_costs_nothing(
    job: Job, out: str, tmp_path: Path
) -> None:
    events, held = tmp_path / "events.jsonl", tmp_path / "held"
    driver = begin(events, *job.command(out), endpoint=job.server.endpoint, held=held)
    try:
        with Reader(job.server, out) as reader:
            for num_videos, num_more in ((3, 9), (12, 12)):
                let_begin(held, num_videos)
                until_heard(events, "part", driver, times=num_videos // 3)
                reader.until_seen(num_videos)
                let_begin(held, num_videos + num_more)
                job.server.kill()
                job.server.start()
            _, said = driver.communicate(timeout=DEADLINE_S)
    finally:
        end(driver)
    assert driver.returncode == 3, said
    made = [event["video_id"] for event in heard(events, "video")]
    assert len(set(made)) == len(made) == NUM_CLIPS  # no video was made twice
    assert [event["is_mine"] for event in heard(events, "part")] == [True] * NUM_PARTS
    job.assert_undisturbed(out, reader)


def test_a_server_that_stays_dead_ends_the_job_clearly_and_it_goes_on_later(
    job: Job, out: str, tmp_path: Path
) -> None:
    events, held = tmp_path / "events.jsonl", tmp_path / "held"
    command = job.command(out, "--in-process", "--patience", 5)
    driver = begin(events, *command, endpoint=job.server.endpoint, held=held, AWS_MAX_ATTEMPTS="4")
    try:
        let_begin(held, NUM_CLIPS - 3)
        until_heard(events, "part", driver, times=3)
        job.server.kill()
        let_begin(held, NUM_CLIPS)
        _, said = driver.communicate(timeout=DEADLINE_S)
    finally:
        end(driver)
        job.server.start()
    assert driver.returncode == 1, said
    store = open_store(out, job.server.config())
    kept = {info.key: info.etag for info in store.scan("parts/part-")}
    assert 3 <= len(kept) < NUM_PARTS
    *_, resume, reason = said.splitlines()
    assert resume.startswith(f"stopped: {3 * len(kept)} of {NUM_CLIPS} rows are committed")
    assert "run the same command again" in resume
    assert reason.startswith("vidray: ")
    assert job.server.endpoint in reason
    plan = load_plan(store)
    assert plan is not None
    events.unlink()

    with Reader(job.server, out) as reader:
        again = vidray("batch", "run", *command, "--events", events, endpoint=job.server.endpoint)
    assert again.returncode == 3, again.stderr
    assert kept.items() <= {info.key: info.etag for info in store.scan("parts/part-")}.items()
    assert len(heard(events, "video")) == NUM_CLIPS - 3 * len(kept)
    job.assert_undisturbed(out, reader)


PUT_FAULTS: tuple[Harm, ...] = (
    "drop_answer", "fail_after", "refuse", "cut_upload", "html", "reset", "drop_answer",
    "drop_answer", "hang", "fail_after",
)  # fmt: skip
GET_FAULTS: tuple[Harm, ...] = (
    "trickle", "refuse", "cut", "html", "reset", "cut", "drop_answer", "refuse",
)  # fmt: skip


def test_a_store_whose_answers_are_slow_wrong_or_lost_costs_time_only(
    job: Job, out: str, tmp_path: Path
) -> None:
    events, held = tmp_path / "events.jsonl", tmp_path / "held"
    proxy = FaultProxy(job.server.port)
    for method, faults in (("PUT", PUT_FAULTS), ("GET", GET_FAULTS)):
        for fault in faults:
            proxy.inject(fault, method=method)
    driver = begin(events, *job.command(out, "--in-process"), endpoint=proxy.endpoint, held=held)
    try:
        with Reader(job.server, out) as reader:
            for num_videos in (3, 12):
                let_begin(held, num_videos)
                reader.until_seen(num_videos)
            let_begin(held, NUM_CLIPS)
            _, said = driver.communicate(timeout=DEADLINE_S)
    finally:
        end(driver)
        proxy.close()
    assert proxy.done.total() == len(PUT_FAULTS) + len(GET_FAULTS)
    assert driver.returncode == 3, said
    assert len(heard(events, "video")) == NUM_CLIPS
    assert [event["is_mine"] for event in heard(events, "part")] == [True] * NUM_PARTS
    job.assert_undisturbed(out, reader)
