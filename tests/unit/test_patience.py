"""A video has a deadline of its own: whatever hangs is not its fault, and it may be tried again."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.pools import Pools
from actors.profile import Profile
from actors.stream_host import ray_flow
from pipeline.analyse import analyse
from pipeline.config import EngineLimits, Sampling
from pipeline.errors import ConfigError, Transient
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.local import LocalFlow, LocalModel
from pipeline.patience import Deadline, Patience
from pipeline.session import Session
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.source import Source
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder
from tests.virtual_time import run_virtually

LIMITS = EngineLimits(max_tokens=4_096, question_tokens=2_048)  # room for one stream
OPTIONS = PlanOptions(fps=12.0)
TASKS = Tasks(asks=(Ask(question="How many?"),), sampling=Sampling(max_new_tokens=4))
SILENCE = Patience(silence_s=0.3, window_s=60.0)
ENOUGH = Patience(silence_s=60.0, window_s=60.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model"), max_pixels=CHUNKED_PIXELS)


@pytest.fixture(scope="module")
def model(folder: Path) -> LocalModel:
    return LocalModel.load(folder, limits=LIMITS)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source.of(make(tmp_path_factory.mktemp("clips"), Clip(num_frames=24, **CHUNKED)))


@pytest.fixture
def flow(model: LocalModel) -> Iterator[LocalFlow]:
    flow = LocalFlow(model, options=OPTIONS, patience=ENOUGH)
    yield flow
    flow.close()
    assert model.rank.streams == ()  # whatever hung


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 100))


async def hang(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


async def hang_among_words(*_: object, **__: object) -> AsyncIterator[None]:
    await asyncio.Event().wait()
    yield


@pytest.mark.parametrize(
    ("stage", "call", "patience"),
    [
        ("_readers", "open", SILENCE),
        ("_readers", "read", SILENCE),
        ("encoders", "encode", SILENCE),
        # Who waits for room is not silent, since others are at work.
        ("_decoders", "open", Patience(silence_s=0.1, window_s=0.5)),
        ("_decoders", "prefill", SILENCE),
        ("_decoders", "ask", SILENCE),
    ],
)
def test_a_video_is_given_up_whoever_hangs_and_may_be_tried_again(
    stage: str,
    call: str,
    patience: Patience,
    flow: LocalFlow,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> None:
        good = await analyse(source, TASKS, flow, video_id="it")
        assert good.status == "ok", good.detail
        (member,) = getattr(flow, stage).members
        flow.patience = patience
        with monkeypatch.context() as patch:
            patch.setattr(member, call, hang_among_words if call == "ask" else hang)
            with pytest.raises(Transient, match=r"nothing is heard of|takes longer than"):
                await analyse(source, TASKS, flow, video_id="it")
        flow.patience = ENOUGH
        again = await analyse(source, TASKS, flow, video_id="it")
        assert (again.status, again.answers) == ("ok", good.answers)

    run(work())


@pytest.mark.parametrize("stage", ["encoder", "decoder"])
def test_a_thread_of_the_model_that_hangs_holds_up_no_video_and_no_end(
    stage: str, folder: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, model = threading.Event(), LocalModel.load(folder, limits=LIMITS)
    flow = LocalFlow(model, options=OPTIONS, patience=SILENCE)
    flow.patience = ENOUGH  # of the video: what gives up is who waits for the thread
    part, call = (model.encoder, "encode") if stage == "encoder" else (model.rank, "run")
    monkeypatch.setattr(part, call, lambda *_: answers.wait(60))
    with pytest.raises(Transient):
        run(analyse(source, TASKS, flow, video_id="it"))
    assert flow.hangs
    flow.close()
    assert not answers.is_set()
    answers.set()


def test_a_video_that_is_slow_and_gets_on_has_its_time(
    flow: LocalFlow, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow.patience = Patience(silence_s=10.0, window_s=1_000.0)
    (reader,) = flow._readers.members
    read, times_s = reader.read, []

    async def slow(*call: Any) -> Any:
        await asyncio.sleep(9)
        times_s.append(asyncio.get_running_loop().time())
        return await read(*call)

    monkeypatch.setattr(reader, "read", slow)
    record = run_virtually(analyse(source, TASKS, flow, video_id="it"))
    assert record.status == "ok"
    assert times_s[-1] - times_s[0] > 10.0


def test_whoever_waits_for_room_is_not_silent(flow: LocalFlow, source: Source) -> None:
    async def work() -> None:
        async with Session(flow, source) as first:
            await first.ask(["How many?"], sampling=TASKS.sampling)  # keeps its room
            flow.patience = Patience(silence_s=1.0, window_s=60.0)
            async with Session(flow, source) as second:
                waiting = asyncio.create_task(second.ask(["How many?"], sampling=TASKS.sampling))
                done, _ = await asyncio.wait({waiting}, timeout=1.2)
                assert not done
                await first.close()
                assert (await waiting)[0].answer.answer

    run_virtually(work())  # the work itself takes no time then, however slow the machine is


def test_a_deadline_is_put_off_by_what_is_heard_and_ends_in_all_by_windows() -> None:
    deadline = Deadline(Patience(silence_s=10.0, window_s=100.0))

    async def work() -> list[float]:
        loop, ends_s = asyncio.get_running_loop(), []
        for num_windows in (1, 2):
            began_s = loop.time()
            with pytest.raises(Transient, match="takes longer than [12]00 s"):  # noqa: PT012
                async with deadline.kept(num_windows=num_windows):
                    while True:
                        await asyncio.sleep(9)
                        deadline.heard()
            ends_s.append(loop.time() - began_s)
        with pytest.raises(Transient, match="nothing is heard of the video for 10 s"):
            async with deadline.kept():
                await asyncio.sleep(11)
        deadline.heard()  # nobody waits
        with pytest.raises(TimeoutError):  # somebody else's
            async with deadline.kept(), asyncio.timeout(1):
                await asyncio.sleep(2)
        return ends_s

    assert run_virtually(work()) == [100.0, 200.0]


def test_a_patience_is_positive() -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        Patience(silence_s=0)


def test_the_patience_of_a_profile_is_its_flows(folder: Path) -> None:
    profile = Profile(window_s=5.0)
    planner = Planner(family=load_family(folder), options=OPTIONS)
    nobody = Pools((), (), ())
    flow = ray_flow(nobody, folder, owner="host", planner=planner, profile=profile)
    assert flow.patience == Patience(silence_s=profile.answer_s, window_s=5.0)
