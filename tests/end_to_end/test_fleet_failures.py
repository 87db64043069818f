"""Processes of a running fleet that die, hang or crash: the same records, nothing left behind."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.state import actors

from actors.calls import recover, until_ready
from actors.cluster import start_local_ray
from actors.fleet import Fleet
from actors.launch import start_fleet
from actors.profile import DecoderPool, EncoderPool, Profile, ReaderPool
from pipeline.analyse import analyse
from pipeline.config import Sampling
from pipeline.errors import FailureCode, SourceAway
from pipeline.events import Event, Moved
from pipeline.local import LocalFlow, LocalModel
from pipeline.patience import Patience
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from tests.loader import Loader
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder
from tests.victims import VICTIMS, is_gone, until, until_gone

pytestmark = pytest.mark.timeout(400)

STALL_S = 10.0
TASKS = Tasks(
    asks=(Ask(question="How many?"), Ask(question="Which way?")),
    sampling=Sampling(max_new_tokens=12),
)
OPTIONS = PlanOptions(fps=6.0)
PROFILE = Profile(
    readers=ReaderPool(num_cpus=0.1),
    encoders=EncoderPool(num_cpus=0.1),
    decoders=DecoderPool(tensor_parallel=2, num_cpus=0.1, kv_tokens=16_384),
    stall_s=STALL_S,
    max_attempts=6,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model") / "tiny", max_pixels=CHUNKED_PIXELS)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("clips")
    return [
        Source.of(make(folder, Clip(num_frames=24 + 6 * n, **CHUNKED), f"clip{n}"))
        for n in range(3)
    ]


@pytest.fixture(scope="module")
def expected(checkpoint: Path, sources: list[Source]) -> list[Record]:
    flow = LocalFlow(LocalModel.load(checkpoint), options=OPTIONS)

    async def run() -> list[Record]:
        return [await analyse(s, TASKS, flow, video_id=str(i)) for i, s in enumerate(sources)]

    records = asyncio.run(run())
    flow.close()
    assert all(record.status == "ok" for record in records)
    return records


@pytest.fixture(scope="module")
def fleet(checkpoint: Path) -> Iterator[Fleet]:
    """One fleet for all: it has to survive them."""
    start_local_ray(object_store_bytes=200 << 20, num_cpus=2)
    with start_fleet(checkpoint, options=OPTIONS, profile=PROFILE) as fleet:
        yield fleet
    ray.shutdown()


def without_timings(record: Record) -> Record:
    return replace(record, timings=None)


async def analyse_all(
    fleet: Fleet, sources: list[Source], listener: Callable[[Event], None] = lambda event: None
) -> list[Record]:
    work = (
        fleet.analyse(s, TASKS, video_id=str(i), listener=listener) for i, s in enumerate(sources)
    )
    return [without_timings(record) for record in await asyncio.gather(*work)]


def in_actor(actor: Any, work: Callable[[Any], Any]) -> Any:
    """The result of work(actor's own object), in the actor's process."""
    return ray.get(actor.__ray_call__.remote(work))


@pytest.mark.parametrize("find_victim", VICTIMS.values(), ids=VICTIMS)
def test_a_process_that_hangs_midway_is_found_out_and_changes_no_record(
    find_victim: Any, fleet: Fleet, sources: list[Source], expected: list[Record]
) -> None:
    victim, stopped = find_victim(fleet), []

    def stop_once(event: Event) -> None:
        if not stopped:
            os.kill(victim, signal.SIGSTOP)
            stopped.append(victim)

    records = asyncio.run(analyse_all(fleet, sources, stop_once))
    assert records == [without_timings(record) for record in expected]
    until_gone(victim, patience_s=STALL_S)


def test_who_waits_for_a_lost_actor_ends_one_that_hangs_and_none_that_still_loads(
    fleet: Fleet, tmp_path: Path
) -> None:
    """To a process that hangs before it was called calls fail soon: no ping finds it silent."""
    file = tmp_path / "weights"
    file.touch()
    loader = Loader.remote(str(file))

    def facts() -> dict[str, Any]:
        return actors(loader._actor_id.hex())

    until(lambda: facts().get("State") == "ALIVE", patience_s=60)
    hanging = facts()["Pid"]
    file.unlink()
    os.kill(hanging, signal.SIGSTOP)
    asyncio.run(recover(loader, patience_s=1))
    until_gone(hanging, patience_s=STALL_S)
    asyncio.run(recover(loader, patience_s=1))  # it starts again, and waits for its file
    file.touch()
    assert asyncio.run(until_ready(loader, patience_s=60))
    assert facts()["NumRestarts"] == 1
    ray.kill(loader)


def test_a_rank_that_dies_idle_takes_its_replica_down_and_it_returns(
    fleet: Fleet, sources: list[Source], expected: list[Record]
) -> None:
    (decoder,) = fleet.pools.decoders
    ranks = ray.get(decoder.process_ids.remote())
    os.kill(ranks[1], signal.SIGKILL)
    until(lambda: all(map(is_gone, ranks)), patience_s=10)
    records = asyncio.run(analyse_all(fleet, sources))
    assert records == [without_timings(record) for record in expected]
    assert not set(ranks) & set(ray.get(decoder.process_ids.remote()))


def test_a_model_folder_that_is_away_while_a_decoder_starts_again_fails_no_video(
    fleet: Fleet, checkpoint: Path, sources: list[Source], expected: list[Record]
) -> None:
    (decoder,) = fleet.pools.decoders
    leader, *_ = ray.get(decoder.process_ids.remote())
    away = checkpoint.rename(checkpoint.with_name("away"))

    async def run() -> list[Record]:
        os.kill(leader, signal.SIGKILL)
        work = asyncio.create_task(analyse_all(fleet, sources))
        await asyncio.to_thread(until, lambda: num_restarts(decoder) >= 2, patience_s=120)
        assert not work.done()
        away.rename(checkpoint)
        return await work

    assert asyncio.run(run()) == [without_timings(record) for record in expected]


def test_a_video_of_which_nothing_is_heard_is_tried_again_though_all_answer(
    fleet: Fleet, sources: list[Source], expected: list[Record]
) -> None:
    """One call of it hangs in an actor that is well otherwise."""

    def hang_once(self: Any) -> None:
        prefill = self._engine.prefill

        async def hang(*_: object, **__: object) -> None:
            self._engine.prefill = prefill
            self.num_hung = 1
            await asyncio.Event().wait()

        self._engine.prefill = hang

    (decoder,) = fleet.pools.decoders
    before = num_restarts(decoder)
    in_actor(decoder, hang_once)
    in_actor(fleet.hosts[0], lambda self: setattr(self._flow, "patience", Patience(silence_s=5.0)))
    records = asyncio.run(analyse_all(fleet, sources))
    assert records == [without_timings(record) for record in expected]
    assert in_actor(decoder, lambda self: self.num_hung) == 1
    assert num_restarts(decoder) == before
    in_actor(fleet.hosts[0], lambda self: setattr(self._flow, "patience", Patience()))


def num_restarts(actor: Any) -> int:
    return int(actors(actor._actor_id.hex()).get("NumRestarts", 0))


def test_a_cancelled_video_holds_nothing(
    fleet: Fleet, tmp_path: Path, sources: list[Source], expected: list[Record]
) -> None:
    long = Source.of(make(tmp_path, Clip(num_frames=600)))
    endless = Tasks(sampling=Sampling(max_new_tokens=1_000))

    async def begin_and_cancel(stage: str) -> None:
        reached = asyncio.Event()

        def listen(event: Event) -> None:
            if not isinstance(event, Moved) or event.stage == stage:
                reached.set()

        work = fleet.analyse(long, endless, video_id="long", listener=listen)
        task = asyncio.create_task(work)
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def is_free() -> bool:
        streams = ray.get(fleet.pools.decoders[0].streams.remote())
        videos = in_actor(fleet.pools.readers[0], lambda self: self._stage.videos)
        return not streams and not videos

    for stage in ("read", "prefill"):
        asyncio.run(begin_and_cancel(stage))
        until(is_free, patience_s=60)
    records = asyncio.run(analyse_all(fleet, sources))
    assert records == [without_timings(record) for record in expected]


def test_what_a_lost_call_leaves_open_is_closed_by_the_next_renewal(
    fleet: Fleet, sources: list[Source]
) -> None:
    """Videos and keys and values: nobody would ever ask for them again."""
    (reader,), (decoder,) = fleet.pools.readers, fleet.pools.decoders

    async def lose(name: object) -> None:
        return None

    def silent(claim: object) -> None:
        return None

    def set_calls(**calls: Callable[[object], object]) -> None:
        """These in place of the clients' own; without any, their own again."""

        def change(host: Any) -> None:
            for client in (*host._flow._readers.members, *host._flow._decoders.members):
                for name in ("close", "renew"):
                    vars(client).pop(name, None)
                vars(client).update(calls)

        in_actor(fleet.hosts[0], change)

    def open_names() -> tuple[object, object]:
        videos = in_actor(reader, lambda self: self._stage.videos)
        return videos, ray.get(decoder.streams.remote())

    async def open_and_close() -> None:
        async with fleet.session(sources[0]) as session:
            await session.ask(["How many?"])
            set_calls(close=lose, renew=silent)
        assert open_names()[1]

    asyncio.run(open_and_close())
    set_calls()
    until(lambda: open_names() == ((), ()), patience_s=4 * STALL_S)


def test_a_reader_that_does_not_see_a_file_as_we_do_stops_and_says_so(
    fleet: Fleet, sources: list[Source]
) -> None:
    """It is no failure of the video, so there is no row."""
    asyncio.run(fleet.require_seen(sources[0].path))
    away = replace(sources[0], size_bytes=1)
    with pytest.raises(SourceAway, match=f"does not see {sources[0].path.parent}"):
        asyncio.run(fleet.analyse(away, TASKS, video_id="away"))


POISON = """
import sys
split = sys.argv.index("--")
sys.path[:0] = sys.argv[1:split]
import ctypes
from pipeline.video import zygote_process
from pipeline.video.ffmpeg import video_file
rgb = video_file.VideoFile.rgb
def crash_on_tall(self, frame, **size):
    if frame.height > 250:
        ctypes.string_at(0)
    return rgb(self, frame, **size)
video_file.VideoFile.rgb = crash_on_tall
sys.exit(zygote_process.main(int(sys.argv[split + 1])))
"""


def test_a_clip_that_crashes_its_decoder_fails_alone(
    fleet: Fleet, tmp_path: Path, sources: list[Source], expected: list[Record]
) -> None:
    (reader,) = fleet.pools.readers
    program = POISON

    def poison_decoding(self: Any) -> int:
        from pipeline.video import zygote

        zygote.PROGRAM = program
        zygote.stop_zygote()
        return os.getpid()

    before = in_actor(reader, poison_decoding)
    poison = Source.of(make(tmp_path, Clip(height=256)))
    records = asyncio.run(analyse_all(fleet, [*sources, poison]))
    assert records[:-1] == [without_timings(record) for record in expected]
    assert (records[-1].status, records[-1].code) == ("failed", FailureCode.DECODER_CRASH)
    assert ray.get(reader.process_id.remote()) == before
