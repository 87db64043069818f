"""A job on a cluster through the Jobs API: submitted twice, stopped, submitted again, finished."""

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from jobs.lab.free_ports import free_port
from pipeline.store.catalogue import Catalogue
from pipeline.store.fsck import fsck
from pipeline.store.job_plan import load_plan
from pipeline.store.journal import tick_name
from pipeline.store.open import open_store
from pipeline.store.rows import committed_parts
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

BIN = Path(sys.executable).parent
DEADLINE_S = 300
NUM_GOOD = 31  # clips of a job: many more than a fleet has open at once
JOBS_API = re.compile(r"RAY_API_SERVER_ADDRESS='([^']+)'")
ENVIRONMENT = os.environ | {
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


class Cluster(NamedTuple):
    """Where its head answers who joins it, and where its Jobs API does."""

    head: str
    jobs: str


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    """A head node whose every port is on loopback."""
    port, jobs_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        head = subprocess.Popen(
            [
                str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1",
                f"--port={port}", "--include-dashboard=true", "--dashboard-host=127.0.0.1",
                f"--dashboard-port={jobs_port}", f"--temp-dir={folder}",
                f"--dashboard-agent-listen-port={free_port()}", "--num-cpus=2",
                f"--object-store-memory={200 << 20}", "--disable-usage-stats",
            ],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            assert head.stdout is not None
            said = ""
            while (found := JOBS_API.search(said)) is None:
                line = head.stdout.readline()
                assert line, said  # it ended
                said += line
            yield Cluster(head=f"127.0.0.1:{port}", jobs=found[1])
        finally:
            head.terminate()
            head.communicate(timeout=60)


@pytest.fixture
def cluster(running: Cluster) -> str:
    return running.jobs


def vidray(*arguments: object, token: str | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(BIN / "vidray"), "batch", *map(str, arguments)],
        env=ENVIRONMENT | ({"RAY_AUTH_TOKEN": token} if token else {}),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def cluster_says(out: Path, cluster: str) -> str:
    """The cluster's word for the job, once it has ended."""
    followed = vidray("logs", out, "--follow", "--address", cluster)
    assert followed.returncode == 0, followed.stderr
    seen = vidray("status", out, "--address", cluster).stdout
    return seen.splitlines()[0].split()[1]


def until_committed(out: Path, *, num_parts: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while len(committed_parts(open_store(str(out)))) < num_parts:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_is_submitted_once_stopped_gone_on_with_and_seen_from_outside(
    cluster: str, tmp_path: Path
) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    for number in range(NUM_GOOD):
        make(clips, Clip(num_frames=24 + number), f"clip {number}")
    (clips / "bad.mp4").write_text("this is no video")
    model = write_folder(tmp_path / "tiny")
    submit = (  # answers take seconds: more than Ray by itself waits before it kills
        "submit", clips, out, "--model", model, "--videos-per-part", 1, "--max-new-tokens", 1000,
        "--ask", "Who's \"there\"?", "--address", cluster,
    )  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: vidray(*submit), range(2)))
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    plan = load_plan(open_store(str(out)))
    assert plan is not None
    assert all(one.stdout.startswith(f"{plan.job_id}: ") for one in done)

    until_committed(out, num_parts=3)
    assert vidray("cancel", out, "--address", cluster).returncode == 0
    assert cluster_says(out, cluster) == "stopped"
    num_kept = len(committed_parts(open_store(str(out))))
    said = vidray("logs", out, "--address", cluster).stdout
    assert "no new part is begun" in said
    assert f"stopped: {num_kept} of {NUM_GOOD + 1} rows are committed" in said  # it was not killed
    assert num_kept < NUM_GOOD + 1
    assert vidray(*submit).stdout == f"{plan.job_id}: pending\n"
    assert cluster_says(out, cluster) == "succeeded"

    report = fsck(open_store(str(out)), now_s=0.0)
    assert report.is_sound
    assert (report.is_finished, report.num_rows) == (True, NUM_GOOD + 1)
    seen = vidray("status", out, "--address", cluster)
    assert seen.returncode == 3
    assert f"{NUM_GOOD + 1} of {NUM_GOOD + 1}, 1 failed: 1 not_a_video" in seen.stdout
    said = vidray("logs", out, "--address", cluster).stdout
    assert f"{num_kept} of them done before" in said
    assert f"{NUM_GOOD + 1} videos, 1 failed" in said
    assert vidray(*submit).stdout == f"{plan.job_id}: succeeded\n"
    assert "was not running" in vidray("cancel", out, "--address", cluster).stdout


def test_a_tick_of_ingest_sends_its_batch_to_the_cluster_once(cluster: str, tmp_path: Path) -> None:
    clips, rows = tmp_path / "clips", tmp_path / "rows"
    clips.mkdir()
    make(clips, Clip(), "a")
    model, file = write_folder(tmp_path / "tiny"), tmp_path / "ingest.yaml"
    file.write_text(
        f"s: {{cron: '@yearly', source: {clips}, out: {rows}, settle_s: 0, submit: '{cluster}',"
        f" job: {{model: {model}, max-new-tokens: 2}}}}"
    )

    def tick() -> str:
        command = [str(BIN / "vidray"), "ingest", "tick", "s", "--schedules", str(file)]
        done = subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "1 new" in (said := tick())
    catalogue = Catalogue(open_store(str(rows)))
    ((number, tick_s),) = catalogue.state.jobs.items()
    job_id = f"s-{tick_name(tick_s)}"
    assert f"{job_id}: pending" in said
    # Who sent it is gone: the next tick asks again, and the cluster knows it by its id.
    assert re.search(rf"{job_id}: (pending|running|succeeded)", tick())
    out = Path(catalogue.job(number).uri)
    assert cluster_says(out, cluster) == "succeeded"
    report = fsck(open_store(str(out)), now_s=0.0)
    assert (report.is_sound, report.is_finished, report.num_rows) == (True, True, 1)
    assert "nothing is due" in tick()
    assert len(Catalogue(open_store(str(rows))).state.jobs) == 1


def test_without_the_clusters_token_nothing_is_submitted(cluster: str, tmp_path: Path) -> None:
    refused = vidray("submit", tmp_path, tmp_path / "out", "--address", cluster, token="0" * 64)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("vidray: no Ray Jobs API answers")
    assert not (tmp_path / "out").exists()


def test_without_a_cluster_there_is_one_clear_line(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    refused = vidray("submit", tmp_path, tmp_path / "out", "--address", nowhere)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(
        f"vidray: no Ray Jobs API answers at {nowhere}"
    )


def test_analyze_joins_a_cluster_says_the_same_there_and_leaves_nothing_behind(
    running: Cluster, tmp_path: Path
) -> None:
    clip = make(tmp_path, Clip())
    analyze = [str(BIN / "vidray"), "analyze", str(clip), "--json", "--max-new-tokens", "4"]
    analyze += ["--model", str(write_folder(tmp_path / "tiny"))]
    records = []
    # Whoever left an actor there would leave no room for the third.
    for place in ("--in-process", *[f"--address={running.head}"] * 3):
        done = subprocess.run(
            [*analyze, place], env=ENVIRONMENT, capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        del record["timings"]
        records.append(record)
    assert records[0]["captions"][0]["text"]
    assert all(record == records[0] for record in records)
