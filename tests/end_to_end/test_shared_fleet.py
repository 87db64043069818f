"""A batch and an endpoint on the same actors: requests go first, and every row is right."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from actors.cluster import start_local_ray
from actors.fleet import Fleet
from actors.launch import start_fleet
from actors.profile import DecoderPool, EncoderPool, Profile, ReaderPool
from pipeline.config import Sampling
from pipeline.errors import ConfigError
from pipeline.events import Event, Words
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

pytestmark = pytest.mark.timeout(300)
NUM_CLIPS = 16
IN_FLIGHT = 8
# Room for two videos: the other six of the batch that are in flight wait for it.
PROFILE = Profile(
    readers=ReaderPool(num_cpus=0.1),
    encoders=EncoderPool(num_cpus=0.1),
    decoders=DecoderPool(num_cpus=0.1, kv_tokens=2 * 1_400, question_tokens=1_024),
    videos_in_flight=IN_FLIGHT,
    stall_s=60,
)
BATCH = PlanOptions(fps=6.0)
TASKS = Tasks(asks=(Ask(question="Why?"),), sampling=Sampling(max_new_tokens=60))
MANNER = Sampling(max_new_tokens=12)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model") / "tiny", max_pixels=CHUNKED_PIXELS)


@pytest.fixture(scope="module")
def endpoint(checkpoint: Path) -> Iterator[Fleet]:
    """That of who came first."""
    import ray

    start_local_ray(object_store_bytes=PROFILE.object_store_bytes, num_cpus=PROFILE.num_cpus)
    try:
        with start_fleet(checkpoint, profile=PROFILE, name="main") as fleet:
            yield fleet
    finally:
        ray.shutdown()


def test_a_request_during_a_batch_is_answered_before_the_batch_is_and_all_rows_are_right(
    endpoint: Fleet, checkpoint: Path, tmp_path: Path
):
    clips = [
        Source.of(make(tmp_path, Clip(num_frames=24 + n % 3, **CHUNKED), f"clip{n}"))
        for n in range(NUM_CLIPS)
    ]
    asked = Source.of(make(tmp_path, Clip(num_frames=30, **CHUNKED), "asked"))

    async def one(batch: Fleet, number: int, done: list[int]) -> Record:
        record = await batch.analyse(clips[number], TASKS, video_id=str(number))
        done.append(number)
        return record

    async def question() -> tuple[str, float]:
        started_s, first_s = time.monotonic(), list[float]()

        def hear(event: Event) -> None:
            if isinstance(event, Words) and not first_s:
                first_s.append(time.monotonic() - started_s)

        async with endpoint.session(asked) as session:
            (reply,) = await session.ask(["How many?"], sampling=MANNER, listener=hear)
        return reply.answer.answer, first_s[0]

    async def both(batch: Fleet) -> tuple[list[Record], list[tuple[str, float]], int, int]:
        done: list[int] = []
        quiet = await question()
        under_way = asyncio.gather(*(one(batch, number, done) for number in range(NUM_CLIPS)))
        while not done:  # the fleet is full
            await asyncio.sleep(0.01)
        num_before = len(done)
        busy = await question()
        num_after = len(done)
        return await under_way, [quiet, busy], num_before, num_after

    with start_fleet(checkpoint, options=BATCH, profile=PROFILE, name="main") as batch:
        assert batch.pools == endpoint.pools
        records, (quiet, busy), num_before, num_after = asyncio.run(both(batch))
        alone = [
            asyncio.run(batch.analyse(clips[number], TASKS, video_id=str(number)))
            for number in range(3)
        ]
    print(f"first word after {quiet[1]:.2f} s alone, {busy[1]:.2f} s during a batch")
    assert busy[0] == quiet[0]
    assert [record.status for record in records] == ["ok"] * NUM_CLIPS
    # In its turn it would have come after all that were in flight.
    assert num_after - num_before < IN_FLIGHT - 1
    assert num_after < NUM_CLIPS
    for number, record in enumerate(alone):
        assert facts(records[number]) == facts(record)


def test_videos_that_idle_open_in_one_host_give_way_to_those_of_another(
    endpoint: Fleet, checkpoint: Path, tmp_path: Path
):
    """They are kept for minutes, and hold all the room that there is."""
    clips = [
        Source.of(make(tmp_path, Clip(num_frames=24 + n, **CHUNKED), f"clip{n}")) for n in range(3)
    ]

    async def both(batch: Fleet) -> Record:
        async with endpoint.session(clips[0]) as one, endpoint.session(clips[1]) as other:
            for session in (one, other):
                await session.ask(["How many?"], sampling=MANNER)
            async with asyncio.timeout(120):
                record = await batch.analyse(clips[2], TASKS, video_id="2")
            await one.ask(["And why?"], sampling=MANNER)  # it is watched again
            return record

    with start_fleet(checkpoint, options=BATCH, profile=PROFILE, name="main") as batch:
        assert asyncio.run(both(batch)).status == "ok"


def test_who_wants_another_model_of_a_fleet_than_it_has_is_refused(endpoint: Fleet, tmp_path: Path):
    other = write_folder(tmp_path / "other", max_pixels=CHUNKED_PIXELS)
    with (
        pytest.raises(ConfigError, match="fleet main"),
        start_fleet(other, profile=PROFILE, name="main"),
    ):
        pass


def facts(record: Record) -> dict[str, Any]:
    return {key: value for key, value in asdict(record).items() if key != "timings"}
