"""What is seen of a fleet at work: the timeline of a video, and the numbers that Ray exports."""

import asyncio
import base64
import math
import re
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
import pytest
import ray
import yaml

from actors.launch import start_fleet
from actors.profile import DecoderPool, Profile
from jobs.exits import Exit
from jobs.sight.board import board, expressions
from jobs.sight.panels import Now, Share
from jobs.sight.samples import MetricSamples
from jobs.trace import Trace
from pipeline.config import Sampling
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from tests.endpoint import tiny_endpoint
from tests.media_factory import CHUNKED, Clip, make
from tests.prometheus import needs_prometheus, prometheus
from tests.timelines import require_timeline
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

pytestmark = pytest.mark.timeout(300)

NUM_WORDS = 6
Sums = dict[tuple[str, str], float]  # by name and stage
TIMEOUT_S = 60.0
DATA_DEADLINE_S = 120.0
WORK_DONE = Share(Now("vidray_done_videos"), Now("vidray_planned_videos")).promql("")
EXPORT_DEADLINE_S = 60.0  # Ray's workers report every few seconds


class Seen(NamedTuple):
    record: Record
    events: list[dict[str, Any]]
    look_again: Callable[[], Record]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """One clip over Ray on this machine, which is still up."""
    folder = tmp_path_factory.mktemp("seen")
    clip = make(folder, Clip(num_frames=48, fps=12, **CHUNKED))
    trace = Trace()
    tasks = Tasks(asks=(Ask(question="Why?"),), sampling=Sampling(max_new_tokens=NUM_WORDS))
    with start_fleet(
        write_folder(folder / "model", max_pixels=CHUNKED_PIXELS),
        options=PlanOptions(fps=12.0),
        profile=Profile(decoders=DecoderPool(kv_tokens=8_192)),
        exports_metrics=True,
    ) as fleet:

        def look(**listening: Any) -> Record:
            return asyncio.run(fleet.analyse(Source.of(clip), tasks, video_id="0a", **listening))

        record = look(listener=trace.listener("clip"))
        trace.write(folder / "trace.json")
        yield Seen(record, require_timeline(folder / "trace.json"), look)


def test_every_stage_of_every_chunk_has_its_actor_and_its_turn(seen: Seen) -> None:
    actors = {e["pid"]: e["args"]["name"] for e in seen.events if e["name"] == "process_name"}
    where = defaultdict(set)
    chunks: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    for event in seen.events:
        if event["ph"] == "X":
            where[event["cat"]].add(actors[event["pid"]])
        if "chunk" in event["args"]:
            chunks[event["args"]["chunk"]][event["cat"]] = event
    assert where == {
        "plan": {"stream host"},
        "read": {"reader-0"},
        "encode": {"encoder-0"},
        "prefill": {"decoder-0"},
        "generate": {"stream host"},
    }
    assert len({e["args"]["process"] for e in seen.events if e["ph"] == "X"}) == len(actors) == 4
    assert len(chunks) >= 4
    for stages in chunks.values():
        assert end(stages["read"]) <= stages["encode"]["ts"]
        assert end(stages["encode"]) <= stages["prefill"]["ts"]
    ahead = [chunks[k + 1]["read"]["ts"] < end(chunks[k]["prefill"]) for k in range(3)]
    assert any(ahead)


def end(event: dict[str, Any]) -> float:
    return event["ts"] + event["dur"]


def test_rays_metrics_are_the_sums_of_the_work(seen: Seen) -> None:
    plan = seen.record.plan
    assert plan is not None
    num_chunks = len([event for event in seen.events if event.get("cat") == "read"])
    frame_bytes = 3 * plan.windows[0].width * plan.windows[0].height
    expected = {
        ("vidray_chunks_total", "read"): num_chunks,
        ("vidray_chunks_total", "encode"): num_chunks,
        ("vidray_chunks_total", "prefill"): num_chunks,
        ("vidray_frames_total", "read"): plan.num_frames,
        ("vidray_bytes_total", "read"): plan.num_frames * frame_bytes,
        ("vidray_tokens_total", "encode"): plan.num_tokens,
        ("vidray_tokens_total", "prefill"): plan.num_tokens,
        ("vidray_tokens_total", "generate"): 2 * NUM_WORDS,
        ("vidray_waiting", "prefill"): 0,
        ("vidray_kv_tokens", ""): 0,  # everything was closed
        ("vidray_kv_share", ""): 0,
    }
    found = exported(until=lambda found: expected.items() <= found.items())
    assert {key: found.get(key) for key in expected} == expected
    for stage in ("read", "encode", "prefill", "generate"):
        assert 0 < found["vidray_busy_seconds_total", stage] < seen.record.timings.total_s


def exporter_of_ray() -> str:
    (node,) = ray.nodes()
    return f"127.0.0.1:{node['MetricsExportPort']}"


def exported(until: Callable[[Sums], bool]) -> Sums:
    """vidray's numbers on the port that a Prometheus would read, summed over the actors."""
    page = f"http://{exporter_of_ray()}/metrics"
    deadline_s = time.monotonic() + EXPORT_DEADLINE_S
    found: Sums = {}
    while not until(found) and time.monotonic() < deadline_s:
        with urllib.request.urlopen(page, timeout=EXPORT_DEADLINE_S) as answer:  # noqa: S310
            lines = answer.read().decode()
        found = {}
        for name, labels, value in re.findall(r"(?m)^ray_(vidray_\w+){(.*)} (\S+)$", lines):
            stage = re.search(r'stage="(\w+)"', labels)
            key = name, stage[1] if stage else ""
            found[key] = found.get(key, 0.0) + float(value)
    return found


@needs_prometheus
def test_every_query_of_the_board_returns_data_of_a_real_run(seen: Seen, tmp_path: Path) -> None:
    """A cluster's actors, an endpoint that is asked, a job with bad videos and bad boxes, a
    scheduler.
    """
    model = write_folder(tmp_path / "model", max_pixels=CHUNKED_PIXELS)
    clip = make(tmp_path, Clip(num_frames=24, fps=12, **CHUNKED))
    with (
        tiny_endpoint(model, tmp_path / "data") as endpoint,
        httpx2.Client(base_url=endpoint, timeout=TIMEOUT_S) as web,
        job_at_work(tmp_path / "job", model) as (address, go_on),
        ingest_at_work(tmp_path / "ingest") as scheduler,
    ):
        targets = {
            "ray": exporter_of_ray(),
            "job": address,
            "endpoint": urlsplit(endpoint).netloc,
            "ingest": scheduler,
        }
        with prometheus(tmp_path / "prometheus", targets) as found:
            missing = dict(expressions(board()))
            is_going = False
            deadline_s = time.monotonic() + DATA_DEADLINE_S
            while missing:
                assert time.monotonic() < deadline_s, f"no data for {missing}"
                if not is_going and found.ask('vidray_planned_videos{job="job"}'):
                    is_going = True
                    go_on()
                ask(web, clip)
                seen.look_again()  # Ray forgets the gauges of actors that do nothing
                for title, query in list(missing.items()):
                    values = found.ask(query).values()
                    if values and not all(map(math.isnan, values)):
                        del missing[title]
            assert not found.ask(WORK_DONE.replace("vidray_", "vidrai_"))  # a mistake has no data
            failures = Now("vidray_failures", by=("code",), above_zero=True)
            page = MetricSamples.parse(web.get("/metrics").text, at_s=0.0)
            ours = failures.values(page, page)
            assert ours
            while found.ask(failures.promql(""), instance=targets["endpoint"]) != ours:
                assert time.monotonic() < deadline_s  # until it has looked again
            while list(found.ask(WORK_DONE, instance=targets["job"]).values()) != [1.0]:
                assert time.monotonic() < deadline_s  # likewise


def ask(web: httpx2.Client, clip: Path) -> None:
    """A question that is answered, and one that fails."""
    url = f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"
    for text in ("Why?", "Why? " * 3_000):
        parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": text}]
        messages = [{"role": "user", "content": parts}]
        web.post("/v1/chat/completions", json={"model": "tiny", "messages": messages})


@contextmanager
def job_at_work(folder: Path, model: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Where a job exports its numbers, and what lets it begin; it stays before its last step."""
    clips = folder / "clips"
    clips.mkdir(parents=True)
    make(clips, Clip(num_frames=48, fps=12, **CHUNKED), "good")
    (clips / "bad.mp4").write_bytes(b"no video at all")
    job = {
        "source": str(clips),
        "out": str(folder / "out"),
        "model": str(model),
        "in_process": True,
        "ground": ["a cat"],  # which these weights cannot
        "metrics": "0",
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "tests.batch_command", str(folder / "job.yaml")]
    with subprocess.Popen(
        [*command, "wait", "parts_listed,success_ready"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        try:
            assert driver.stderr is not None
            said = next(line for line in driver.stderr if "metrics at" in line)
            assert driver.stdin is not None
            driver.stdin.reconfigure(line_buffering=True)
            yield urlsplit(said.split()[-1]).netloc, partial(driver.stdin.write, "\n")
        finally:
            driver.communicate(timeout=TIMEOUT_S)
            assert driver.returncode == Exit.SOME_FAILED


@contextmanager
def ingest_at_work(folder: Path) -> Iterator[str]:
    """Where a scheduler exports its numbers."""
    (folder / "clips").mkdir(parents=True)
    file = folder / "ingest.yaml"
    file.write_text(f"s: {{cron: '@daily', source: {folder}/clips, out: {folder}/rows}}")
    command = [sys.executable, "-m", "jobs.cli", "ingest", "run", "--metrics", "0"]
    with subprocess.Popen(
        [*command, "--schedules", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as scheduler:
        try:
            assert scheduler.stderr is not None
            said = next(line for line in scheduler.stderr if "metrics at" in line)
            yield urlsplit(said.split()[-1]).netloc
        finally:
            scheduler.terminate()
            scheduler.communicate(timeout=TIMEOUT_S)
