"""What is seen of a fleet at work: the timeline of a video, and the numbers that Ray exports."""

import asyncio
import re
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import ray

from actors.fleet import start_fleet
from actors.profile import DecoderPool, Profile
from jobs.trace import Trace
from pipeline.config import Sampling
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from tests.media_factory import CHUNKED, Clip, make
from tests.timelines import require_timeline
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

pytestmark = pytest.mark.timeout(300)

NUM_WORDS = 6
Sums = dict[tuple[str, str], float]  # by name and stage
EXPORT_DEADLINE_S = 60.0  # Ray's workers report every few seconds


class Seen(NamedTuple):
    record: Record
    events: list[dict[str, Any]]


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
        listener = trace.listener("clip")
        record = asyncio.run(
            fleet.analyse(Source.of(clip), tasks, video_id="0a", listener=listener)
        )
        trace.write(folder / "trace.json")
        yield Seen(record, require_timeline(folder / "trace.json"))


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


def exported(until: Callable[[Sums], bool]) -> Sums:
    """vidray's numbers on the port that a Prometheus would read, summed over the actors."""
    (node,) = ray.nodes()
    page = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
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
