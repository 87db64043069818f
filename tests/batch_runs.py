"""The real command as a process, what it tells of itself, and what it leaves in a store."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.lab.bench.s3_server import KEYS
from pipeline.store.fsck import fsck
from pipeline.store.objects import ObjectStore
from pipeline.store.rows import read_rows
from tests.batch_driver import planned_ids

VIDRAY = Path(sys.executable).with_name("vidray")
DEADLINE_S = 600


def environment(endpoint: str | None = None, **more: str) -> dict[str, str]:
    place = {"AWS_ENDPOINT_URL": endpoint} if endpoint else {}
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"} | KEYS | place | more


def vidray(*arguments: object, endpoint: str | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(VIDRAY), *map(str, arguments)],
        env=environment(endpoint),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def rows(store: ObjectStore) -> list[dict[str, Any]]:
    return [row for table in read_rows(store) for row in table.to_pylist()]


def words(store: ObjectStore) -> list[dict[str, Any]]:
    """Rows without what differs from run to run."""
    return [{k: v for k, v in row.items() if k != "timings"} for row in rows(store)]


def assert_complete(store: ObjectStore) -> None:
    ids = [row["video_id"] for row in rows(store)]
    assert ids == planned_ids(store)
    assert len(set(ids)) == len(ids)
    report = fsck(store, now_s=0.0)
    assert report.is_sound
    assert report.is_finished


def upload(folder: Path, store: ObjectStore) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(8) as pool:
        put = pool.map(
            lambda path: store.put_new(str(path.relative_to(folder)), path.read_bytes()), files
        )
        assert all(put)


def heard(events: Path, *names: str) -> list[dict[str, Any]]:
    """Events with one of these names; the last line may still be being written."""
    whole = [line for line in events.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [event for line in whole if (event := json.loads(line))["event"] in names]


def until_heard(
    events: Path, name: str, driver: "subprocess.Popen[str]", *, times: int = 1
) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        has_ended = driver.poll() is not None  # then all that it told is there
        if len(heard(events, name)) >= times:
            return
        assert not has_ended, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def begin(
    events: Path,
    *arguments: object,
    endpoint: str | None = None,
    held: Path | None = None,
    **more: str,
) -> "subprocess.Popen[str]":
    """`vidray batch run` in a process group of its own, as a shell starts it.

    held: of `let_begin`, without which all videos may begin. more: environment variables.
    """
    events.touch()
    return subprocess.Popen(
        [*program(held), "batch", "run", *map(str, arguments), "--events", str(events)],
        env=environment(endpoint, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def program(held: Path | None = None) -> list[str]:
    """The command; held: a file of `let_begin`."""
    if held is None:
        return [str(VIDRAY)]
    held.touch()
    return [sys.executable, "-m", "tests.held_command", str(held)]


def let_begin(held: Path, num_videos: int) -> None:
    """Of a job that began with this file; as many in all, in the order of their parts."""
    held.write_bytes(bytes(num_videos))


def end(driver: "subprocess.Popen[str]") -> None:
    """With all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=60)
