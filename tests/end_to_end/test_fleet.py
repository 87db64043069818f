"""Videos over Ray actors: the same records as in one process, whoever is killed on the way."""

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from actors.cluster import start_local_ray
from actors.fleet import Fleet
from actors.launch import start_fleet
from actors.profile import DecoderPool, EncoderPool, Profile, ReaderPool
from jobs.lab.soak.trial import decoding_children
from jobs.plan.calibration import Calibration, load_calibration
from jobs.plan.calibrator import Calibrator
from jobs.plan.processes import num_cores, processes_of
from pipeline.analyse import analyse
from pipeline.config import Sampling
from pipeline.engine.ids import StreamId
from pipeline.errors import FailureCode, Transient
from pipeline.events import Event, Moved, Planned, Words
from pipeline.local import LocalFlow, LocalModel
from pipeline.session import Session
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Ask, Ground, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder
from tests.victims import VICTIMS, until_gone

pytestmark = pytest.mark.timeout(300)

TASKS = Tasks(
    asks=(Ask(question="How many?"), Ask(question="Which way?")),
    grounds=(Ground(query="a thing", times_s=(1.0,)),),
    sampling=Sampling(max_new_tokens=12),
)
OPTIONS = PlanOptions(fps=6.0)
SMALL = Profile(
    readers=ReaderPool(num_cpus=0.1),
    encoders=EncoderPool(num_cpus=0.1),
    decoders=DecoderPool(num_cpus=0.1, kv_tokens=8_192),
    stall_s=60,
)
SHAPES = {
    "one of each": SMALL,
    "two of each": SMALL.model_copy(
        update={
            "readers": ReaderPool(num_actors=2, num_cpus=0.1),
            "encoders": EncoderPool(num_actors=2, num_cpus=0.1),
            "decoders": DecoderPool(num_replicas=2, num_cpus=0.1, kv_tokens=8_192),
            "stream_hosts": 2,
        }
    ),
    "two ranks": SMALL.model_copy(
        update={"decoders": DecoderPool(tensor_parallel=2, num_cpus=0.1, kv_tokens=8_192)}
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model") / "tiny", max_pixels=CHUNKED_PIXELS)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Three videos and, between them, one that is none."""
    folder = tmp_path_factory.mktemp("clips")
    clips = [make(folder, Clip(num_frames=24 + 6 * n, **CHUNKED), f"clip{n}") for n in range(3)]
    bad = folder / "bad.mp4"
    bad.write_text("this is no video")
    return [Source.of(path) for path in (clips[0], bad, *clips[1:])]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One local cluster for all of these tests: starting one takes seconds."""
    start_local_ray(object_store_bytes=200 << 20, num_cpus=2)
    yield
    ray.shutdown()


FleetOf = Callable[[str], Fleet]


@pytest.fixture(scope="module")
def fleet_of(cluster: None, checkpoint: Path) -> Iterator[FleetOf]:
    """A running fleet by its shape: one for all tests, whatever they do to its processes."""
    with ExitStack() as running:

        @cache
        def start(shape: str) -> Fleet:
            fleet = start_fleet(checkpoint, options=OPTIONS, profile=SHAPES[shape])
            return running.enter_context(fleet)

        yield start


def facts(record: Record) -> dict[str, Any]:
    """All of a record but what differs from run to run."""
    return {key: value for key, value in asdict(record).items() if key != "timings"}


@pytest.fixture(scope="module")
def expected(checkpoint: Path, sources: list[Source]) -> list[dict[str, Any]]:
    """What the flow in one process says."""
    flow = LocalFlow(LocalModel.load(checkpoint), options=OPTIONS)

    async def run() -> list[Record]:
        return [await analyse(s, TASKS, flow, video_id=str(i)) for i, s in enumerate(sources)]

    records = asyncio.run(run())
    flow.close()
    assert [record.code for record in records] == [None, FailureCode.NOT_A_VIDEO, None, None]
    assert all(record.answers for record in records if record.code is None)
    return [facts(record) for record in records]


async def analyse_all(fleet: Any, sources: list[Source]) -> list[dict[str, Any]]:
    work = (fleet.analyse(s, TASKS, video_id=str(i)) for i, s in enumerate(sources))
    return [facts(record) for record in await asyncio.gather(*work)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_fleet_writes_the_records_of_one_process(
    shape: str, fleet_of: FleetOf, sources: list[Source], expected: list[dict[str, Any]]
) -> None:
    assert asyncio.run(analyse_all(fleet_of(shape), sources)) == expected


def test_who_listens_hears_of_every_stage_and_gets_the_same_record(
    fleet_of: FleetOf, sources: list[Source], expected: list[dict[str, Any]]
) -> None:
    heard: list[Event] = []
    fleet = fleet_of("one of each")

    async def both() -> list[Record]:
        source, (decoder,) = sources[0], fleet.pools.decoders
        alone = await fleet.analyse(source, TASKS, video_id="0")
        listened = await fleet.analyse(source, TASKS, video_id="0", listener=heard.append)
        while await decoder.streams.remote():
            await asyncio.sleep(0.05)  # who has answered closes its stream
        return [alone, listened]

    assert list(map(facts, asyncio.run(both()))) == [expected[0], expected[0]]
    assert {type(event) for event in heard} == {Planned, Moved, Words}


def test_a_session_is_watched_once_and_answers_on_when_its_decoder_is_killed(
    fleet_of: FleetOf, checkpoint: Path, sources: list[Source]
) -> None:
    sampling = Sampling(max_new_tokens=12)

    async def undisturbed() -> list[Any]:
        flow = LocalFlow(LocalModel.load(checkpoint), options=OPTIONS)
        async with Session(flow, sources[0]) as session:
            (first,) = await session.ask(["How many?"], sampling=sampling)
            (second,) = await session.ask(["And why?"], sampling=sampling, after=first)
            (third,) = await session.ask(["Which way?"], sampling=sampling)
        flow.close()
        return [first, second, third]

    async def disturbed() -> tuple[list[Any], list[Counter[str]]]:
        replies, counters = [], []

        async def ask(question: str, after: Any = None) -> None:
            heard: list[Event] = []
            (reply,) = await session.ask(
                [question], sampling=sampling, after=after, listener=heard.append
            )
            replies.append(reply)
            counters.append(Counter(each.stage for each in heard if isinstance(each, Moved)))

        fleet = fleet_of("two ranks")
        async with fleet.session(sources[0]) as session:
            num_chunks.append(len(session.plan.windows[0].chunks))
            await ask("How many?")
            await ask("And why?", after=replies[0])
            victim = VICTIMS["second rank"](fleet)
            os.kill(victim, signal.SIGKILL)
            await ask("Which way?")
        until_gone(victim)
        while await fleet.pools.decoders[0].streams.remote():
            await asyncio.sleep(0.05)  # who closed its session holds nothing
        return replies, counters

    num_chunks: list[int] = []
    replies, (first, second, third) = asyncio.run(disturbed())
    assert replies == asyncio.run(undisturbed())
    once = dict.fromkeys(("read", "encode", "prefill"), num_chunks[0])
    assert (first, second) == (once, {})
    assert third["prefill"] >= num_chunks[0]  # it was lost, so all of it is watched again


def test_a_session_whose_host_is_killed_opens_again_by_itself(
    fleet_of: FleetOf, sources: list[Source]
) -> None:
    fleet = fleet_of("one of each")

    async def asked() -> list[Any]:
        async with fleet.session(sources[0]) as session:
            before = await session.ask(["How many?"], sampling=Sampling(max_new_tokens=12))
            os.kill(VICTIMS["stream host"](fleet), signal.SIGKILL)
            after = await session.ask(["How many?"], sampling=Sampling(max_new_tokens=12))
            return [before, after]

    before, after = asyncio.run(asked())
    assert before == after


def niceness(pid: int) -> int:
    """Of the thread that gives way most: Linux counts by thread, and heirs of one are like it."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has just ended
            found.append(int((thread / "stat").read_text().rpartition(")")[2].split()[16]))
    return max(found)


def test_on_shared_cores_what_is_nearer_to_the_words_goes_first(
    checkpoint: Path, sources: list[Source]
) -> None:
    async def nices() -> dict[str, int]:
        with start_fleet(checkpoint, options=OPTIONS, profile=SMALL) as fleet:
            await fleet.analyse(sources[0], TASKS, video_id="0")  # so that all have worked
            processes = await processes_of(fleet)
            reader = fleet.pools.readers[0]
            await reader.open.remote(StreamId("a", "", 0), sources[0])
            first = {child.pid for child in decoding_children(processes["reader 0"])}
            await reader.open.remote(StreamId("a", "", 1), sources[2])
            both = {child.pid for child in decoding_children(processes["reader 0"])}
            named = {"first video": first, "second video": both - first}
            processes |= {name: pid for name, (pid,) in named.items()}
            return {name: niceness(pid) for name, pid in processes.items()}

    found = asyncio.run(nices())
    assert found["decoder 0 rank 0"] < found["encoder 0"] <= found["first video"]
    assert found["first video"] < found["second video"] == 19


def test_an_actors_word_about_a_checkpoint_arrives_as_one_sentence(
    checkpoint: Path, tmp_path: Path
) -> None:
    """As when the folder changes after the command has looked at it."""
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    with (folder / "model.safetensors").open("r+b") as weights:
        weights.truncate(100_000)

    async def start() -> None:
        with start_fleet(folder, profile=SMALL) as fleet:
            async for _ in fleet.starting():
                pass

    with pytest.raises(
        Transient, match=r"^an? \w+ cannot start: .*CheckpointError: .*truncated"
    ) as e:
        asyncio.run(start())
    assert "\n" not in str(e.value)


def test_a_local_ray_listens_on_loopback_only(fleet_of: FleetOf) -> None:
    for shape in ("one of each", "two ranks"):
        ray.get(fleet_of(shape).hosts[0].process_id.remote())
        ray.get([each.process_ids.remote() for each in fleet_of(shape).pools.decoders])
    listening = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one of those that were killed before
            listening += [
                connection.laddr.ip.removeprefix("::ffff:")  # an IPv4 address in IPv6's clothes
                for connection in process.net_connections(kind="inet")
                if connection.status == psutil.CONN_LISTEN
            ]
    assert listening
    assert {ip for ip in listening if not ip_address(ip).is_loopback} == set()


@pytest.mark.parametrize("find_victim", VICTIMS.values(), ids=VICTIMS)
def test_a_process_killed_midway_changes_no_record(
    find_victim: Any, fleet_of: FleetOf, sources: list[Source], expected: list[dict[str, Any]]
) -> None:
    fleet = fleet_of("two ranks")
    victim = find_victim(fleet)
    killed = asyncio.Event()

    def kill_once(event: object) -> None:
        if not killed.is_set():
            os.kill(victim, signal.SIGKILL)
            killed.set()

    async def run() -> list[dict[str, Any]]:
        work = (
            fleet.analyse(s, TASKS, video_id=str(i), listener=kill_once)
            for i, s in enumerate(sources)
        )
        return [facts(record) for record in await asyncio.gather(*work)]

    assert asyncio.run(run()) == expected
    assert killed.is_set()
    until_gone(victim)


def test_a_calibration_finds_what_each_stage_of_a_fleet_costs(
    fleet_of: FleetOf,
    checkpoint: Path,
    sources: list[Source],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("jobs.plan.calibrator.MANY", 16)
    profile = SHAPES["one of each"]
    clips = [source for source in sources if source.path.name != "bad.mp4"]
    trials = Calibrator(fleet_of("one of each"), checkpoint, profile, clips[:1] * 2, clips[1:])

    async def run() -> Calibration:
        await trials.begin(clips, TASKS)
        await trials.round()
        return trials.keep()

    found = asyncio.run(run())
    for cost in (found.costs.reader, found.costs.encoder, found.costs.decoder, found.costs.host):
        assert sum((cost.video_s, cost.chunk_s, cost.work_s, cost.word_s)) > 0
    assert 0 < found.cores <= num_cores()
    assert found.memory_bytes > 200 << 20
    assert found.words >= 1
    assert load_calibration(checkpoint, profile) == found
