"""Stages of set times in the real flow: they overlap, and a slow one holds the others back.

Everything is real but the clock and Ray's transport: a clip decoded by a child, a tiny model, the
insides of the actors. Each stage takes its seconds in virtual time.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from actors.profile import DecoderPool, Profile
from actors.stream_host import RayFlow
from pipeline.analyse import analyse
from pipeline.config import Sampling
from pipeline.engine.commands import Step
from pipeline.engine.rank import Rank
from pipeline.events import Event, Moved, Words
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.stages.encoding import EncodingStage
from pipeline.stages.reading import OpenVideo
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.source import Source
from tests.local_actors import flow_over_actors
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder
from tests.virtual_time import VirtualLoop, run_virtually

NUM_CHUNKS = 24
STEP_BYTES = 2 * 56 * 56 * 3 + 4 * 64 * 4  # of a chunk: two frames, four tokens
TASKS = Tasks(caption=None, asks=(Ask(question="Why?"),), sampling=Sampling(max_new_tokens=1))


@dataclass
class Stages:
    """Seconds that one chunk takes in each stage, and how far each stage is."""

    loop: VirtualLoop
    read: float = 0.0
    encode: float = 0.0
    prefill: float = 0.0
    word: float = 0.01
    done: Counter[str] = field(default_factory=Counter)

    def spend(self, stage: str, num_chunks: int = 1) -> None:
        self.loop.spend(getattr(self, stage) * num_chunks)
        self.done[stage] += num_chunks

    @property
    def slowest_s(self) -> float:
        return NUM_CHUNKS * max(self.read, self.encode, self.prefill)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("clips")
    return Source.of(make(folder, Clip(num_frames=2 * NUM_CHUNKS, fps=8, width=64, height=64)))


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    """Puts its set times around the work of all actors made while it lives."""
    stages = Stages(VirtualLoop())
    read, encode, run = (
        OpenVideo.read,
        EncodingStage._encode,
        Rank.run,
    )

    def timed_read(video, begins, kind):
        stages.spend("read")
        return read(video, begins, kind)

    def timed_encode(stage, chunks):
        stages.spend("encode", len(chunks))
        return encode(stage, chunks)

    def timed_run(rank, commands):
        for step in (each for each in commands if isinstance(each, Step)):
            stages.spend("prefill", len(step.prefills))
            stages.spend("word", bool(step.generations))
        return run(rank, commands)

    monkeypatch.setattr(OpenVideo, "read", timed_read)
    monkeypatch.setattr(EncodingStage, "_encode", timed_encode)
    monkeypatch.setattr(Rank, "run", timed_run)
    return stages


def new_flow(checkpoint: Path, profile: Profile) -> RayFlow:
    """A flow over one actor of each kind, every temporal patch a chunk."""
    family = load_family(checkpoint)
    planner = Planner(family=family, options=PlanOptions(fps=8.0), chunk_tokens=1)
    return flow_over_actors(checkpoint, planner=planner, profile=profile)


PROFILE = Profile(
    decoders=DecoderPool(kv_tokens=8_192, question_tokens=512), video_bytes=4 * STEP_BYTES
)
BOTTLENECKS = {
    "reading": {"read": 1.0, "encode": 0.6, "prefill": 0.8},
    "encoding": {"read": 0.6, "encode": 1.0, "prefill": 0.8},
    "prefill": {"read": 0.6, "encode": 0.8, "prefill": 1.0},
    "all alike": {"read": 1.0, "encode": 1.0, "prefill": 1.0},
}


@pytest.mark.parametrize("times_s", BOTTLENECKS.values(), ids=BOTTLENECKS)
def test_the_first_word_comes_when_the_slowest_stage_is_through(
    checkpoint: Path, clip: Source, stages: Stages, times_s: dict[str, float]
) -> None:
    vars(stages).update(times_s)
    first_word_s: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Words) and not first_word_s:
            first_word_s.append(stages.loop.time())

    async def run() -> Record:
        flow = new_flow(checkpoint, PROFILE)
        return await analyse(clip, TASKS, flow, video_id="0", listener=listen)

    record = run_virtually(run(), stages.loop)
    assert record.status == "ok"
    assert stages.done["read"] == stages.done["encode"] == stages.done["prefill"] == NUM_CHUNKS
    assert stages.slowest_s <= first_word_s[0] <= 1.1 * stages.slowest_s + 1e-6


@pytest.mark.parametrize("times_s", BOTTLENECKS.values(), ids=BOTTLENECKS)
def test_many_videos_take_as_long_as_the_slowest_stage_of_all_of_them(
    checkpoint: Path, clip: Source, stages: Stages, times_s: dict[str, float]
) -> None:
    vars(stages).update(times_s)
    num_videos = 5

    async def run() -> list[Record]:
        flow, room = new_flow(checkpoint, PROFILE), asyncio.Semaphore(4)

        async def one(number: int) -> Record:
            async with room:
                return await analyse(clip, TASKS, flow, video_id=str(number))

        return await asyncio.gather(*map(one, range(num_videos)))

    records = run_virtually(run(), stages.loop)
    assert {record.answers for record in records} == {records[0].answers}
    assert stages.loop.time() <= 1.1 * num_videos * stages.slowest_s


@pytest.mark.parametrize("num_chunks", [1, 3, 7])
def test_a_decoder_that_stalls_stops_the_reader_within_the_credit(
    checkpoint: Path, clip: Source, stages: Stages, num_chunks: int
) -> None:
    vars(stages).update(BOTTLENECKS["reading"])
    profile = PROFILE.model_copy(update={"video_bytes": num_chunks * STEP_BYTES, "stall_s": 1e9})
    moved: Counter[str] = Counter()

    def listen(event: Event) -> None:
        if isinstance(event, Moved):
            moved[event.stage] += event.num_steps
            if moved["prefill"] == 2:
                stages.prefill = 1e6

    async def run() -> tuple[int, int]:
        work = analyse(clip, TASKS, new_flow(checkpoint, profile), video_id="0", listener=listen)
        task = asyncio.create_task(work)
        await asyncio.sleep(1_000)
        stalled_at = stages.done["read"], moved["prefill"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return stalled_at

    num_read, num_prefilled = run_virtually(run(), stages.loop)
    assert num_prefilled == 2
    assert num_read - num_prefilled == num_chunks
