"""Archives in, tables out, through the real command: one row per video, whatever happens."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.lab.bench.s3_server import BUCKET, S3Server
from pipeline.config import EngineLimits
from pipeline.store.job_plan import CommitPoint
from pipeline.store.open import open_store
from pipeline.store.rows import committed_parts
from pipeline.video.reader import DecodeLimits
from tests.batch_runs import (
    DEADLINE_S,
    assert_complete,
    begin,
    end,
    environment,
    heard,
    let_begin,
    program,
    rows,
    until_heard,
    upload,
    vidray,
    words,
)
from tests.fault_proxy import FaultProxy
from tests.hostile import CASES
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
NUM_GOOD = int(os.environ.get("VIDRAY_ARCHIVE_CLIPS", "40"))
BAD = {  # the command's limits are the default ones
    name: case for name, case in CASES.items() if case.max_pixels == DecodeLimits().max_pixels
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six good clips and, between them, one that is none."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        make(folder, Clip(num_frames=24 + number), f"clip{number}")
    (folder / "clip2b.mp4").write_text("this is no video")
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good clips by number, and every file of the hostile table in a folder of its name."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(NUM_GOOD):
        make(folder, Clip(num_frames=12 + number), f"good{number:02d}")
    for name, case in BAD.items():
        (folder / name).mkdir()
        path = case.build(folder / name)
        for other in set((folder / name).iterdir()) - {path}:  # what it was made of
            other.unlink()
    return folder


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_an_archive_of_good_and_hostile_files_has_one_right_row_each(
    place: str, archive: Path, model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source, out, endpoint = str(archive), str(tmp_path / "out"), None
    store = open_store(out)
    if place == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        base, endpoint = f"s3://{BUCKET}/{uuid.uuid4().hex}", server.endpoint
        source, out = f"{base}/archive", f"{base}/out"
        upload(archive, open_store(source, server.config()))
        store = open_store(out, server.config())
    events = tmp_path / "events.jsonl"
    done = vidray(
        "batch", "run", source, out, "--model", model, "--suffix", "", "--videos-per-part", 16,
        "--max-new-tokens", 4, "--ground", "it", "--events", events, endpoint=endpoint,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert_complete(store)
    found = {row["uri"].removeprefix(f"{source}/"): row for row in rows(store)}
    assert len(found) == NUM_GOOD + len(BAD)
    good = [found[f"good{number:02d}.mp4"] for number in range(NUM_GOOD)]
    assert [row["code"] for row in good] == [None] * NUM_GOOD
    assert [row["media"]["num_frames"] for row in good] == list(range(12, 12 + NUM_GOOD))
    assert all(row["captions"][0]["text"] and row["boxes"] for row in good)
    outcomes = {key.partition("/")[0]: row for key, row in found.items() if "/" in key}
    assert {name: row["code"] or "ok" for name, row in outcomes.items()} == {
        name: case.outcome for name, case in BAD.items()
    }
    assert all(case.flag in outcomes[name]["flags"] for name, case in BAD.items() if case.flag)
    assert len(heard(events, "started", "finished")) == 2
    assert len(heard(events, "video")) == len(found)


def test_a_job_of_very_long_answers_has_room_for_them(
    clips: Path, model: Path, tmp_path: Path
) -> None:
    longer = EngineLimits().question_tokens + 1
    done = vidray(
        "batch", "run", clips, tmp_path / "out", "--model", model, "--limit", 1, "--in-process",
        "--no-caption", "--ask", "Which?", "--choices", "red,blue", "--max-new-tokens", longer,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (row,) = rows(open_store(str(tmp_path / "out")))
    assert row["answers"][0]["answer"] in ("red", "blue")


# Where, at which passing, and whether over Ray: a start of Ray takes long, commits are the same.
KILLS = [
    (CommitPoint.SHARD_WRITTEN, 1, False),
    (CommitPoint.PLAN_WRITTEN, 1, False),
    (CommitPoint.PART_CHECKED, 2, True),
    (CommitPoint.PART_WRITTEN, 1, False),
    (CommitPoint.SUCCESS_READY, 1, False),
]


def job_file(folder: Path, clips: Path, model: Path, out: str, *, over_ray: bool = False) -> Path:
    fields = {
        "source": str(clips),
        "out": out,
        "model": str(model),
        "videos_per_part": 2,
        "max_new_tokens": 4,
        "ask": ["Which?"],
        "in_process": not over_ray,
    }
    file = folder / f"job-{over_ray}.yaml"
    file.write_text(yaml.safe_dump(fields))
    return file


def start(file: Path, *end: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.batch_command", str(file), *map(str, end)],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def undisturbed(
    clips: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The rows of a run that nobody disturbs, by `vidray batch run --job`."""
    folder = tmp_path_factory.mktemp("undisturbed")
    file = job_file(folder, clips, model, str(folder / "out"))
    done = vidray("batch", "run", "--job", file)
    assert done.returncode == 3, done.stderr
    assert done.stdout.strip().endswith("7 videos, 1 failed: 1 not_a_video")
    assert_complete(open_store(str(folder / "out")))
    return words(open_store(str(folder / "out")))


def test_a_driver_killed_again_and_again_is_finished_by_running_it_again(
    clips: Path, model: Path, tmp_path: Path, undisturbed: list[dict[str, Any]]
) -> None:
    out = str(tmp_path / "out")
    store, kept = open_store(out), dict[str, str]()
    for point, count, over_ray in KILLS:
        file = job_file(tmp_path, clips, model, out, over_ray=over_ray)
        driver = start(file, "kill", point, count)
        driver.communicate(timeout=DEADLINE_S)
        assert driver.returncode == -signal.SIGKILL, point
        etags = {info.key: info.etag for info in store.scan("parts/part-")}
        assert kept.items() <= etags.items()  # what was committed is not made again
        kept = etags
    assert len(committed_parts(store)) == 4
    last = start(file)
    _, said = last.communicate(timeout=DEADLINE_S)
    assert last.returncode == 3, said
    assert_complete(store)
    assert words(store) == undisturbed


def test_two_drivers_at_once_make_one_job(
    clips: Path, model: Path, tmp_path: Path, undisturbed: list[dict[str, Any]]
) -> None:
    out = str(tmp_path / "out")
    job = ("--job", job_file(tmp_path, clips, model, out), "--videos-per-part", 1)
    events = [tmp_path / f"events{number}" for number in range(2)]
    drivers = [begin(file, *job) for file in events]
    try:
        for driver in drivers:
            told, said = driver.communicate(timeout=DEADLINE_S)
            assert driver.returncode == 3, said
            assert told.strip().endswith("7 videos, 1 failed: 1 not_a_video")
    finally:
        for driver in drivers:
            end(driver)
    store = open_store(out)
    assert_complete(store)
    assert words(store) == undisturbed
    assert sum(len(heard(file, "video")) for file in events) < 2 * len(undisturbed)  # shared


@pytest.fixture(scope="module")
def many_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many_clips")
    for number in range(24):
        make(folder, Clip(num_frames=24), f"clip{number:02d}")
    return folder


@pytest.mark.parametrize(
    ("stop", "code", "where"),
    [(signal.SIGINT, 130, []), (signal.SIGTERM, 143, ["--in-process"])],
    ids=["ctrl-c-over-ray", "sigterm-in-process"],
)
def test_a_stopped_job_finishes_the_parts_under_way_and_goes_on_without_them(
    stop: signal.Signals, code: int, where: list[str], many_clips: Path, model: Path, tmp_path: Path
) -> None:
    out, events, held = tmp_path / "out", tmp_path / "events.jsonl", tmp_path / "held"
    store = open_store(str(out))
    command = (many_clips, out, "--model", model, "--videos-per-part", 3, "--max-new-tokens", 4,
               "--grace", 300, *where)  # fmt: skip
    driver = begin(events, *command, held=held)
    try:
        let_begin(held, 4)
        until_heard(events, "part", driver)
        # A terminal tells all of the group.
        os.killpg(driver.pid, stop) if stop is signal.SIGINT else driver.terminate()
        until_heard(events, "stopping", driver)
        let_begin(held, 24)
        _, said = driver.communicate(timeout=DEADLINE_S)
    finally:
        end(driver)
    assert driver.returncode == code, said
    made = [event["video_id"] for event in heard(events, "video")]
    kept = {info.key: info.etag for info in store.scan("parts/part-")}
    assert 0 < len(kept) < 8
    assert sorted(made) == sorted(row["video_id"] for row in rows(store))  # nothing was for nothing
    assert f"stopped: {len(made)} of 24 rows are committed" in said
    events.unlink()

    again = vidray("batch", "run", *command, "--events", events)
    assert again.returncode == 0, again.stderr
    assert kept.items() <= {info.key: info.etag for info in store.scan("parts/part-")}.items()
    assert not {event["video_id"] for event in heard(events, "video")} & set(made)
    assert_complete(store)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_of_any_width_shows_the_cache_in_use_and_how_to_end_a_stopped_job_now(
    width: int, many_clips: Path, model: Path, tmp_path: Path
) -> None:
    screen, far_end = pty.openpty()
    fcntl.ioctl(far_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    keys = {name: word for name, word in environment(TERM="xterm").items() if name != "COLUMNS"}
    held = tmp_path / "held"
    let_begin(held, 22)  # it cannot end by itself
    driver = subprocess.Popen(
        [*program(held), "batch", "run", str(many_clips), str(tmp_path / "out"), "--in-process",
         "--model", str(model), "--videos-per-part", "1", "--max-new-tokens", "64"],
        env=keys, stdin=far_end, stdout=far_end, stderr=far_end,
    )  # fmt: skip
    os.close(far_end)
    try:
        sent = _shown_until(screen, rb"KV \d+%")
        driver.send_signal(signal.SIGTERM)
        sent = _shown_until(screen, rb"stop again to end now", sent)
        let_begin(held, 23)
        sent = _shown_until(screen, rb"stopped: \d+ of 24 rows are committed", sent)
        assert driver.wait(DEADLINE_S) == 143
    finally:
        driver.kill()
        os.close(screen)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent.decode())
    assert re.search(r"24 videos, 0 failed, \S+ left", shown)
    assert "stopping: parts under way get 25 s; stop again to end now" in shown
    assert ("no new part is begun" in shown) == (width > 60)
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown


def _shown_until(screen: int, pattern: bytes, sent: bytes = b"") -> bytes:
    """What the terminal was and is sent, up to the pattern; the test's timeout bounds it."""
    while not re.search(pattern, sent):
        try:
            sent += os.read(screen, 65_536)
        except OSError:  # EIO: the other end was closed
            pytest.fail(f"ended before {pattern!r} was shown: {sent.decode()}")
    return sent


@pytest.mark.parametrize("ending", ["second signal", "end of the grace"])
def test_a_job_stopped_for_good_drops_what_is_unfinished_and_nothing_else(
    ending: str, many_clips: Path, model: Path, tmp_path: Path
) -> None:
    out, events, held = tmp_path / "out", tmp_path / "events.jsonl", tmp_path / "held"
    store = open_store(str(out))
    command = (many_clips, out, "--model", model, "--videos-per-part", 12, "--max-new-tokens", 4,
               "--in-process", "--grace", 300 if ending == "second signal" else 0)  # fmt: skip
    driver = begin(events, *command, held=held)
    try:
        let_begin(held, 13)  # the other one begins, and is not finished
        until_heard(events, "part", driver)
        driver.terminate()
        until_heard(events, "stopping", driver)
        if ending == "second signal":
            driver.terminate()
        _, said = driver.communicate(timeout=DEADLINE_S)
    finally:
        end(driver)
    assert driver.returncode == 143, said
    assert len(heard(events, "video")) < 24
    assert "stopped: 12 of 24 rows are committed" in said
    assert len(committed_parts(store)) == 1
    assert vidray("batch", "run", *command).returncode == 0
    assert_complete(store)


def test_a_revoked_key_is_one_clear_line_and_the_job_goes_on_later(
    clips: Path, model: Path, s3_server: S3Server
) -> None:
    out = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    command = ("batch", "run", clips, out, "--model", model, "--max-new-tokens", 2, "--limit", 2)
    proxy = FaultProxy(s3_server.port)
    try:
        proxy.inject("revoke", method="PUT", times=99)
        refused = vidray(*command, endpoint=proxy.endpoint)
    finally:
        proxy.close()
    assert refused.returncode == 2
    assert "InvalidAccessKeyId" in refused.stderr.splitlines()[-1]
    done = vidray(*command, endpoint=s3_server.endpoint)
    assert done.returncode == 0, done.stderr
    assert_complete(open_store(out, s3_server.config()))


def test_a_full_disk_stops_the_job_clearly_and_it_goes_on_later(
    clips: Path, model: Path, tmp_path: Path, undisturbed: list[dict[str, Any]]
) -> None:
    out = str(tmp_path / "out")
    file = job_file(tmp_path, clips, model, out)
    driver = start(file, "full", CommitPoint.PART_CHECKED, 2)
    _, said = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 1
    assert said.splitlines()[-1].endswith(f"StoreFull: {out}: no space left")
    assert re.search("stopped: [12] of 7 rows are committed and stay", said)  # one part is short
    assert len(committed_parts(open_store(out))) == 1
    assert vidray("batch", "run", "--job", file).returncode == 3
    assert_complete(open_store(out))
    assert words(open_store(out)) == undisturbed


def test_random_kills_leave_every_row_once_and_right(model: Path, tmp_path: Path) -> None:
    done = vidray(
        "soak", "kills", tmp_path, "--model", model, "--count", 4, "--videos", 7, "--in-process"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 kills over ")
