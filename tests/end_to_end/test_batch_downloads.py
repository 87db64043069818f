"""Jobs that are stopped or killed while videos are on their way from S3."""

import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.lab.bench.s3_server import BUCKET, S3Server
from pipeline.store.objects import ObjectStore
from pipeline.store.open import open_store
from tests.batch_runs import DEADLINE_S, assert_complete, begin, end, rows, upload, vidray
from tests.fault_proxy import FaultProxy
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

pytestmark = [pytest.mark.timeout(600)]

GRACE_S = 1


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    proxy = FaultProxy(s3_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def place(s3_server: S3Server) -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def store(s3_server: S3Server, place: str) -> ObjectStore:
    return open_store(f"{place}/rows", s3_server.config())


@pytest.fixture
def command(s3_server: S3Server, place: str, tmp_path: Path) -> tuple[object, ...]:
    """A job over three clips, whose copies are kept where the test can see them."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(3):
        make(clips, Clip(num_frames=24), f"clip{number}")
    upload(clips, open_store(f"{place}/clips", s3_server.config()))
    (tmp_path / "copies").mkdir()
    return (
        f"{place}/clips", f"{place}/rows", "--model", write_folder(tmp_path / "model"),
        "--videos-per-part", 1, "--max-new-tokens", 2, "--in-process",
        "--copies", tmp_path / "copies", "--grace", GRACE_S,
    )  # fmt: skip


def until_one_is_on_its_way(proxy: FaultProxy, driver: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not proxy.done["trickle"]:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def copies(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "copies").rglob("*") if path.is_file()]


def test_a_slow_download_does_not_hold_up_a_job_that_is_stopped(
    command: tuple[object, ...],
    proxy: FaultProxy,
    s3_server: S3Server,
    store: ObjectStore,
    tmp_path: Path,
) -> None:
    proxy.inject("trickle", method="GET", key=".mp4", times=99)
    driver = begin(tmp_path / "events", *command, endpoint=proxy.endpoint)
    try:
        until_one_is_on_its_way(proxy, driver)
        driver.send_signal(signal.SIGTERM)
        _, said = driver.communicate(timeout=60)  # a download would take minutes
    finally:
        end(driver)
    assert driver.returncode == 128 + signal.SIGTERM, said
    assert "run the same command again to go on" in said
    assert copies(tmp_path) == []
    done = vidray("batch", "run", *command, endpoint=s3_server.endpoint)
    assert done.returncode == 0, done.stderr
    assert_complete(store)


def test_copies_of_a_killed_driver_are_gone_after_the_next_run(
    command: tuple[object, ...],
    proxy: FaultProxy,
    s3_server: S3Server,
    store: ObjectStore,
    tmp_path: Path,
) -> None:
    proxy.inject("trickle", method="GET", key=".mp4", times=99)
    driver = begin(tmp_path / "events", *command, endpoint=proxy.endpoint)
    try:
        until_one_is_on_its_way(proxy, driver)
    finally:
        end(driver)
    assert any(path.name.startswith("video-") for path in copies(tmp_path))
    done = vidray("batch", "run", *command, endpoint=s3_server.endpoint)
    assert done.returncode == 0, done.stderr
    assert copies(tmp_path) == []
    assert_complete(store)


def test_a_key_that_the_server_has_no_place_for_is_its_own_row(
    command: tuple[object, ...], place: str, s3_server: S3Server, store: ObjectStore, tmp_path: Path
) -> None:
    """Legal in S3, and asked for as it is; this server keeps folders, and answers 400."""
    videos = tmp_path / "videos.txt"
    names = ("clip0.mp4", "a/./b.mp4", "clip1.mp4", "clip2.mp4")
    videos.write_text("\n".join(f"{place}/clips/{name}" for name in names))
    done = vidray("batch", "run", videos, *command[1:], endpoint=s3_server.endpoint)
    assert done.returncode == 3, done.stderr
    assert_complete(store)
    odd, *others = sorted(rows(store), key=lambda row: row["uri"])
    assert odd["uri"] == f"{place}/clips/a/./b.mp4"
    assert odd["code"] == "source_unreadable"
    assert "the store answered 400" in odd["detail"]
    assert {row["status"] for row in others} == {"ok"}
