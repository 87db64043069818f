"""A serving loop that is cancelled in the middle of a step: the rank is touched by one at a time,
in order, and nothing that was asked for is lost.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from pipeline.engine.commands import Commands, Control, EndGeneration, Report
from pipeline.engine.engine import Engine
from pipeline.engine.rank import Rank
from pipeline.errors import Transient
from tests.streams import (
    EOS,
    LIMITS,
    new_rank,
    prompt_window,
    question,
    stream_id,
    token_chunks,
)
from tests.tiny_model import Tiny, tiny_model
from tests.tiny_tokenizer import tiny_tokenizer

MODEL = tiny_model(Tiny(seed=5))
SHOWN = prompt_window()
CHUNKS = token_chunks(MODEL, SHOWN)
DEADLINE_S = 20


class Held(Rank):
    """Its steps wait to be let go; says whether it was ever touched beside one."""

    def __init__(self) -> None:
        super().__init__(MODEL.language, tiny_tokenizer(), eos_ids=(EOS,), limits=LIMITS)
        self.is_stepping, self.may_step = threading.Event(), threading.Event()
        self.controls_beside_steps: list[Control] = []
        self.num_steps = 0

    def run(self, commands: Commands) -> Report:
        self.num_steps += 1
        self.is_stepping.set()
        if not self.may_step.wait(DEADLINE_S):
            raise RuntimeError("the test never let the step go")
        report = super().run(commands)
        self.is_stepping.clear()
        return report

    def control(self, command: Control) -> None:
        if self.is_stepping.is_set():
            self.controls_beside_steps.append(command)
        super().control(command)


@pytest.fixture
def rank() -> Iterator[Held]:
    held = Held()
    yield held
    held.may_step.set()  # or its thread would wait for the deadline


def in_time(session: Callable[[], Awaitable[object]]) -> object:
    async def run() -> object:
        return await asyncio.wait_for(session(), DEADLINE_S)

    return asyncio.run(run())


async def cancelled(task: "asyncio.Task[object] | None") -> None:
    assert task is not None
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0)


async def turns() -> None:
    """Enough of the event loop's for whatever could be done to be done."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_close_waits_for_the_step_that_outlived_its_serving_task(rank: Held) -> None:
    async def session() -> None:
        engine = Engine(rank)
        await engine.open(stream_id(0), [SHOWN])
        prefilling = asyncio.create_task(engine.prefill(stream_id(0), CHUNKS[0], number=0))
        await asyncio.to_thread(rank.is_stepping.wait, DEADLINE_S)
        await cancelled(engine._serving)
        closing = asyncio.create_task(engine.close(stream_id(0)))
        await turns()
        assert not closing.done()
        assert rank.streams == (stream_id(0),)
        rank.may_step.set()
        await closing
        with pytest.raises(Transient):
            await prefilling
        assert rank.streams == ()
        engine.stop()

    in_time(session)
    assert rank.controls_beside_steps == []
    assert rank.num_steps == 1
    assert rank.admission.num_free_tokens == LIMITS.max_tokens


def test_what_a_step_did_reaches_its_callers_though_its_serving_task_was_cancelled(
    rank: Held,
) -> None:
    async def session() -> None:
        engine = Engine(rank)
        await engine.open(stream_id(0), [SHOWN])
        prefilling = asyncio.create_task(engine.prefill(stream_id(0), CHUNKS[0], number=0))
        await asyncio.to_thread(rank.is_stepping.wait, DEADLINE_S)
        for _ in range(3):  # the loop that waits for its predecessor's step, too
            await cancelled(engine._serving)
            await turns()
        rank.may_step.set()
        span = await prefilling
        assert span.num_tokens == CHUNKS[0].tokens.shape[0]
        engine.stop()

    in_time(session)
    assert rank.num_steps == 1


def test_an_answer_goes_on_to_the_same_words_though_its_serving_task_is_cancelled(
    rank: Held,
) -> None:
    asked = question(max_new_tokens=12)

    async def said(engine: Engine, *, disturb: bool) -> list[str]:
        name, words = stream_id(int(disturb)), []
        await engine.open(name, [SHOWN])
        for number, chunk in enumerate(CHUNKS):
            await engine.prefill(name, chunk, number=number)
        async for delta in engine.ask(name, [asked]):
            words.append(delta.text)
            if disturb and engine._serving is not None:
                engine._serving.cancel()
        return words

    async def session() -> None:
        rank.may_step.set()
        engine = Engine(rank)
        undisturbed = await said(engine, disturb=False)
        assert await said(engine, disturb=True) == undisturbed
        engine.stop()

    in_time(session)
    assert rank.controls_beside_steps == []


def test_a_step_is_over_before_the_next_event_loop_touches_the_rank(rank: Held) -> None:
    engine = Engine(rank)

    async def begin() -> None:
        await engine.open(stream_id(0), [SHOWN])
        prefilling = asyncio.create_task(engine.prefill(stream_id(0), CHUNKS[0], number=0))
        await asyncio.to_thread(rank.is_stepping.wait, DEADLINE_S)
        await cancelled(prefilling)

    async def end() -> None:
        closing = asyncio.create_task(engine.close(stream_id(0)))
        await turns()
        rank.may_step.set()
        await closing
        engine.stop()

    in_time(begin)
    in_time(end)
    assert rank.controls_beside_steps == []
    assert rank.streams == ()


def test_a_close_is_carried_out_though_its_caller_gave_it_up(rank: Held) -> None:
    async def session() -> None:
        engine = Engine(rank)
        await engine.open(stream_id(0), [SHOWN])
        prefilling = asyncio.create_task(engine.prefill(stream_id(0), CHUNKS[0], number=0))
        await asyncio.to_thread(rank.is_stepping.wait, DEADLINE_S)
        closing = asyncio.create_task(engine.close(stream_id(0)))
        await turns()  # it waits for the step
        await cancelled(closing)
        rank.may_step.set()
        with pytest.raises(Transient):
            await prefilling
        await until(lambda: rank.streams == ())
        engine.stop()

    in_time(session)
    assert rank.admission.num_free_tokens == LIMITS.max_tokens


def test_all_streams_of_a_lost_owner_are_closed_though_whoever_closes_them_is_cancelled(
    rank: Held,
) -> None:
    async def session() -> None:
        engine = Engine(rank)
        for number in range(2):
            await engine.open(stream_id(number, owner="lost"), [SHOWN])
        await engine.open(stream_id(2), [SHOWN])
        prefilling = asyncio.create_task(engine.prefill(stream_id(2), CHUNKS[0], number=0))
        await asyncio.to_thread(rank.is_stepping.wait, DEADLINE_S)
        releasing = asyncio.create_task(engine.release("lost"))
        await turns()
        await cancelled(releasing)
        rank.may_step.set()
        await prefilling
        await until(lambda: rank.streams == (stream_id(2),))
        engine.stop()

    in_time(session)


def test_of_answers_given_up_together_all_end_though_whoever_waits_is_cancelled() -> None:
    ended: list[Control] = []

    class Noting(Held):
        def control(self, command: Control) -> None:
            super().control(command)
            if isinstance(command, EndGeneration):
                ended.append(command)

    rank = Noting()

    async def session() -> None:
        rank.may_step.set()
        engine = Engine(rank)
        await engine.open(stream_id(0), [SHOWN])
        for number, chunk in enumerate(CHUNKS):
            await engine.prefill(stream_id(0), chunk, number=number)
        deltas = engine.ask(
            stream_id(0), [question(seed=seed, max_new_tokens=300) for seed in range(3)]
        )
        indices = set[int]()
        while len(indices) < 3:  # all of them run
            indices.add((await anext(deltas)).question_index)
        rank.may_step.clear()
        rank.is_stepping.clear()
        await asyncio.to_thread(rank.is_stepping.wait, DEADLINE_S)
        leaving = asyncio.create_task(deltas.aclose())
        await turns()
        await cancelled(leaving)
        rank.may_step.set()
        await until(lambda: len(ended) == 3)
        engine.stop()

    in_time(session)
    assert [each.generation.number for each in ended] == [0, 1, 2]


def test_peers_hear_all_commands_in_order_though_the_serving_task_is_cancelled() -> None:
    rank, peer, may_hear = new_rank(MODEL), new_rank(MODEL), asyncio.Event()

    async def broadcast(commands: Commands) -> None:
        await may_hear.wait()
        peer.run(commands)

    async def session() -> None:
        engine = Engine(rank, broadcast=broadcast)
        await engine.open(stream_id(0), [SHOWN])
        await cancelled(engine._serving)
        filling = asyncio.create_task(engine.prefill(stream_id(0), CHUNKS[0], number=0))
        await turns()
        assert peer.streams == ()
        may_hear.set()
        await filling
        engine.stop()

    in_time(session)
    assert peer.streams == rank.streams == (stream_id(0),)
    assert peer.admission.num_free_tokens == rank.admission.num_free_tokens
