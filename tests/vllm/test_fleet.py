"""Videos over Ray with vLLM: the rows of our own engine, also when vLLM's process is killed."""

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.cluster import start_local_ray
from actors.fleet import Fleet
from actors.launch import start_fleet
from actors.vllm.leftovers import shared_files
from jobs.demo.demo_archive import make_archive, tasks_of
from jobs.models import DEMO_MODEL
from jobs.trace import Trace
from jobs.trace_picture import COLOURS, TraceChart, draw
from pipeline.analyse import analyse
from pipeline.config import Sampling
from pipeline.errors import Transient
from pipeline.events import Event, Moved, Words
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.local import LocalFlow, LocalModel
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from tests.media_factory import CHUNKED, Clip, make
from tests.timelines import require_timeline
from tests.tiny_folder import CHUNKED_PIXELS, write_folder
from tests.vllm.profiles import SHAPE, started, vllm_profile

pytestmark = pytest.mark.timeout(900)

# What one video has on its way is bounded so that it is read no faster than it is taken in.
PROFILE = vllm_profile(kv_tokens=16_384, question_tokens=1_024).model_copy(
    update={"video_bytes": 1}
)
TASKS = Tasks(
    asks=tuple(Ask(question=f"What of {number}?") for number in range(10)),
    sampling=Sampling(max_new_tokens=12),
)
OPTIONS = PlanOptions(fps=6.0)
Job = list[tuple[Source, Tasks]]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    start_local_ray(object_store_bytes=200 << 20, num_cpus=2)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model") / "tiny", SHAPE, max_pixels=CHUNKED_PIXELS)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("clips")
    made = [make(folder, Clip(num_frames=24 + 6 * n, **CHUNKED), f"clip{n}") for n in range(3)]
    return [(Source.of(path), TASKS) for path in made]


def facts(record: Record) -> dict[str, Any]:
    """All that an engine has a say in."""
    found = {key: value for key, value in asdict(record).items() if key != "timings"}
    found["provenance"].pop("engine")  # which is all that may differ
    return found


@pytest.fixture(scope="module")
def expected(checkpoint: Path, clips: Job) -> list[dict[str, Any]]:
    return in_process(checkpoint, clips, OPTIONS)


@pytest.fixture(scope="module")
def fleet(checkpoint: Path) -> Iterator[Fleet]:
    """One for all: vLLM takes longer to start than these tests do."""
    with start_fleet(checkpoint, options=OPTIONS, profile=PROFILE) as fleet:
        asyncio.run(started(fleet))
        yield fleet


def in_process(checkpoint: Path, job: Job, options: PlanOptions) -> list[dict[str, Any]]:
    flow = LocalFlow(LocalModel.load(checkpoint), options=options)

    async def run() -> list[Record]:
        return [
            await analyse(source, tasks, flow, video_id=str(number))
            for number, (source, tasks) in enumerate(job)
        ]

    records = asyncio.run(run())
    flow.close()
    assert all(record.code is None for record in records)
    return [facts(record) for record in records]


async def over_vllm(fleet: Fleet, job: Job, **listener: Any) -> list[Record]:
    work = (
        fleet.analyse(source, tasks, video_id=str(number), **listener)
        for number, (source, tasks) in enumerate(job)
    )
    return await asyncio.gather(*work)


def test_the_demo_archive_has_the_same_rows_with_both_engines(tmp_path: Path):
    sampling = load_generation(DEMO_MODEL).sampling
    job = [
        (Source.of(path), replace(tasks_of(truth), sampling=sampling))
        for path, truth in make_archive(tmp_path)
    ]
    for options in (PlanOptions(), PlanOptions(long="windows", max_window_tokens=200)):
        with start_fleet(DEMO_MODEL, options=options, profile=PROFILE) as fleet:
            records = asyncio.run(over_vllm(fleet, job))
        assert [facts(record) for record in records] == in_process(DEMO_MODEL, job, options)
        assert {record.provenance.engine for record in records} == {"vLLM 0.32.0"}


def test_twenty_layouts_of_videos_have_the_same_rows(
    fleet: Fleet, checkpoint: Path, tmp_path: Path
):
    chance = random.Random(16)
    sides = (28, 56, 84, 112, 224, 448)
    layouts = [
        Clip(
            num_frames=chance.randint(2, 60),
            width=chance.choice(sides),
            height=chance.choice(sides[:5]),
        )
        for _ in range(20)
    ]
    tasks = Tasks(asks=(Ask(question="What moves?"),), sampling=Sampling(max_new_tokens=24))
    job = [
        (Source.of(make(tmp_path, layout, f"clip{number}")), tasks)
        for number, layout in enumerate(layouts)
    ]
    records = asyncio.run(over_vllm(fleet, job))
    assert [facts(record) for record in records] == in_process(checkpoint, job, OPTIONS)


def test_a_timeline_shows_prefill_before_the_clip_is_read(fleet: Fleet, clips: Job, tmp_path: Path):
    trace = Trace()
    asyncio.run(over_vllm(fleet, clips[-1:], listener=trace.listener("clip")))
    trace.write(tmp_path / "trace.json")
    require_timeline(tmp_path / "trace.json")  # chunks behind each other are no overlapping slices
    bars = TraceChart.load(tmp_path / "trace.json").bars
    prefills = [bar for bar in bars if bar.stage == "prefill"]
    last_read_ms = max(bar.started_ms + bar.duration_ms for bar in bars if bar.stage == "read")
    assert len(prefills) == sum(bar.stage == "read" for bar in bars) > 3
    assert prefills[0].started_ms + prefills[0].duration_ms < last_read_ms
    draw(tmp_path / "trace.json", tmp_path / "trace.svg")
    assert (tmp_path / "trace.svg").read_text().count(f'fill="{COLOURS["prefill"]}"') > 3


@pytest.mark.parametrize("when", [Moved, Words], ids=["mid-prefill", "mid-answer"])
def test_vllm_killed_midway_changes_no_row(
    when: type[Event], fleet: Fleet, clips: Job, expected: list[dict[str, Any]]
):
    (decoder,) = fleet.pools.decoders
    actor, victim, *others = ray.get(decoder.process_ids.remote())
    assert not [file for each in (victim, *others) for file in shared_files(each)]
    killed = list[type[Event]]()

    def kill_once(event: Event) -> None:
        is_it = isinstance(event, when) and getattr(event, "stage", "prefill") == "prefill"
        if is_it and not killed:
            os.kill(victim, signal.SIGKILL)
            killed.append(type(event))

    records = asyncio.run(over_vllm(fleet, clips, listener=kill_once))
    assert killed == [when]
    assert not {actor, victim} & set(ray.get(decoder.process_ids.remote()))
    assert [facts(record) for record in records] == expected


def test_vllm_ends_with_the_actor_that_started_it(
    fleet: Fleet, clips: Job, expected: list[dict[str, Any]]
):
    (decoder,) = fleet.pools.decoders
    actor, *others = ray.get(decoder.process_ids.remote())
    os.kill(actor, signal.SIGKILL)
    records = asyncio.run(over_vllm(fleet, clips[:1]))
    assert [facts(record) for record in records] == expected[:1]
    assert not [each for each in others if os.path.exists(f"/proc/{each}")]


def test_a_vllm_that_cannot_start_says_why(checkpoint: Path):
    """Why is in the log of vLLM's own process; what it raises says no more than that it did not."""
    decoders = PROFILE.decoders.model_copy(update={"kv_tokens": 10**12})
    profile = PROFILE.model_copy(update={"decoders": decoders})

    async def start() -> None:
        with start_fleet(checkpoint, options=OPTIONS, profile=profile) as fleet:
            await started(fleet)

    with pytest.raises(Transient, match="a decoder cannot start: .*Available memory on node"):
        asyncio.run(start())
