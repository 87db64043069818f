"""Many streams on one engine: each gets the words it would get alone; none hurts another."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing

import pytest
import torch

from pipeline.config import EngineLimits
from pipeline.engine.commands import Commands, Control, Report
from pipeline.engine.engine import Engine
from pipeline.engine.ids import GenerationId, StreamId
from pipeline.engine.lane import Lane, WaitingChunk, Writer
from pipeline.engine.layout import PromptWindow
from pipeline.engine.rank import Rank
from pipeline.engine.scheduler import MAX_PREFILL_TOKENS, Scheduler
from pipeline.errors import BadInput, FailureCode, StreamError, Transient
from pipeline.stages.order import FAIR_EVERY
from pipeline.types import TokenChunk
from tests.streams import (
    EOS,
    LIMITS,
    Asking,
    new_rank,
    prompt_window,
    question,
    stream_id,
    token_chunks,
)
from tests.tiny_model import Tiny, tiny_model
from tests.tiny_tokenizer import tiny_tokenizer

MODEL = tiny_model(Tiny(seed=5))
DEADLINE_S = 60
LOOP = asyncio.new_event_loop()  # of futures that nobody waits for
SHOWN = prompt_window(plan_hash="plan0")
Session = Callable[[Engine], Awaitable[object]]


def serve(session: Session, *, limits: EngineLimits = LIMITS, peer: Rank | None = None) -> object:
    """Run a session against a engine, and end the engine with it."""

    async def broadcast(commands: Commands) -> None:
        if peer is not None:
            peer.run(commands)

    async def run() -> object:
        engine = Engine(new_rank(MODEL, limits=limits), broadcast=broadcast)
        async with AsyncExitStack() as stack:
            stack.callback(engine.stop)
            return await asyncio.wait_for(session(engine), DEADLINE_S)

    return asyncio.run(run())


async def fill(
    engine: Engine, name: StreamId, shown: PromptWindow, chunks: list[TokenChunk]
) -> None:
    await engine.open(name, [shown])
    for number, chunk in enumerate(chunks):
        await engine.prefill(name, chunk, number=number)


async def answers(engine: Engine, name: StreamId, *, seeds: range) -> list[str]:
    questions = [question(3 + seed, seed=seed, max_new_tokens=12) for seed in seeds]
    results: dict[int, str] = {}
    async for delta in engine.ask(name, questions):
        if delta.completion is not None:
            results[delta.question_index] = delta.completion.text
    return [results[index] for index in range(len(questions))]


def alone(seed: int) -> list[str]:
    """What an engine with nothing else to do says of the video of this seed."""
    shown = prompt_window(plan_hash=f"plan{seed}")
    asked = [question(3 + s, seed=s, max_new_tokens=12) for s in range(3)]
    stream = Asking(MODEL).filled(MODEL, shown, seed=seed)
    return [stream.ask(each).text for each in asked]


async def one_video(engine: Engine, seed: int) -> list[str]:
    shown = prompt_window(plan_hash=f"plan{seed}")
    name = stream_id(seed)
    await fill(engine, name, shown, token_chunks(MODEL, shown, seed=seed))
    said = await answers(engine, name, seeds=range(3))
    await engine.close(name)
    return said


def test_videos_served_together_get_the_words_each_gets_alone() -> None:
    async def session(engine: Engine) -> list[list[str]]:
        return list(await asyncio.gather(*(one_video(engine, seed) for seed in range(4))))

    assert serve(session) == [alone(seed) for seed in range(4)]


def test_a_peer_rank_given_the_same_commands_holds_the_same_streams() -> None:
    peer = new_rank(MODEL)

    async def session(engine: Engine) -> list[str]:
        said = await one_video(engine, 0)
        await engine.open(stream_id(90), [prompt_window()])
        return said

    assert serve(session, peer=peer) == alone(0)
    assert peer.admission.num_free_tokens == LIMITS.max_tokens - prompt_window().num_tokens - 1_024


def test_a_video_without_room_waits_until_another_closes() -> None:
    room_for_one = EngineLimits(max_tokens=1_024 + 80, question_tokens=1_024)
    events: list[str] = []

    async def session(engine: Engine) -> None:
        await engine.open(stream_id(0), [prompt_window()])

        async def second() -> None:
            await engine.open(stream_id(1), [prompt_window()])
            events.append("second opened")

        waiting = asyncio.create_task(second())
        for number, chunk in enumerate(token_chunks(MODEL, prompt_window())):
            await engine.prefill(
                stream_id(0), chunk, number=number
            )  # the loop went round: second had its chance
        events.append("first closed")
        await engine.close(stream_id(0))
        await waiting

    serve(session, limits=room_for_one)
    assert events == ["first closed", "second opened"]


def test_a_video_that_can_never_fit_is_refused_at_once() -> None:
    tiny = EngineLimits(max_tokens=20, question_tokens=10)

    async def session(engine: Engine) -> None:
        await engine.open(stream_id(0), [prompt_window()])

    with pytest.raises(BadInput) as caught:
        serve(session, limits=tiny)
    assert caught.value.code is FailureCode.TOKEN_BUDGET


def test_a_wrong_chunk_is_its_own_streams_error_and_neighbours_go_on() -> None:
    async def session(engine: Engine) -> list[str]:
        await engine.open(stream_id(9), [prompt_window(plan_hash="other plan")])
        strange = token_chunks(MODEL, prompt_window(plan_hash="plan0"))[0]
        neighbour = asyncio.create_task(one_video(engine, 0))
        with pytest.raises(StreamError, match="other plan"):
            await engine.prefill(stream_id(9), strange, number=0)
        return await neighbour

    assert serve(session) == alone(0)


def test_a_cancelled_answer_frees_its_room_and_a_closed_stream_its_tokens() -> None:
    rank = new_rank(MODEL)

    async def session() -> None:
        engine = Engine(rank)
        shown = prompt_window()
        await fill(engine, stream_id(0), shown, token_chunks(MODEL, shown))
        async for _ in engine.ask(stream_id(0), [question(max_new_tokens=500)]):
            break  # the listener leaves after the first piece
        for _ in range(3):  # 507 of 1,024 tokens each: only freed room lets the next begin
            async for _ in engine.ask(stream_id(0), [question(max_new_tokens=500)]):
                break
        await engine.close(stream_id(0))
        engine.stop()

    asyncio.run(asyncio.wait_for(session(), DEADLINE_S))
    assert rank.admission.num_free_tokens == LIMITS.max_tokens


def test_everyone_who_waits_hears_of_a_failed_rank() -> None:
    class Broken(Rank):
        def run(self, commands: Commands) -> None:
            raise RuntimeError("lost its peer")

    async def session() -> list[object]:
        rank = Broken(MODEL.language, tiny_tokenizer(), eos_ids=(EOS,), limits=LIMITS)
        engine = Engine(rank)
        await engine.open(stream_id(0), [prompt_window()])
        chunks = token_chunks(MODEL, prompt_window())
        both = [engine.prefill(stream_id(0), chunks[number], number=number) for number in (0, 1)]
        results = await asyncio.gather(*both, return_exceptions=True)
        late = await asyncio.gather(engine.open(stream_id(8), []), return_exceptions=True)
        engine.stop()
        return [*results, *late]

    failures = asyncio.run(asyncio.wait_for(session(), DEADLINE_S))
    assert [type(failure) for failure in failures] == [Transient] * 3


def test_a_closed_stream_lets_go_of_everybody_who_waits_for_it() -> None:
    room_for_one = EngineLimits(max_tokens=1_024 + 80, question_tokens=1_024)

    async def session(engine: Engine) -> list[object]:
        shown = prompt_window()
        chunks = token_chunks(MODEL, shown)
        await fill(engine, stream_id(0), shown, chunks)
        waiting = [
            asyncio.create_task(engine.open(stream_id(7), [shown])),
            asyncio.create_task(answers(engine, stream_id(0), seeds=range(3))),
        ]
        late = asyncio.create_task(engine.prefill(stream_id(0), chunks[0], number=9))
        await asyncio.sleep(0)
        await engine.close(stream_id(7))
        await engine.close(stream_id(0))
        outcome = await asyncio.gather(*waiting, late, return_exceptions=True)
        await engine.open(
            stream_id(6), [shown]
        )  # all room is free again, and nobody stands before it
        return outcome

    outcomes = serve(session, limits=room_for_one)
    assert [type(each) for each in outcomes] == [Transient] * 3


def test_of_a_lost_host_neither_open_nor_waiting_streams_are_left() -> None:
    room_for_one = EngineLimits(max_tokens=1_024 + 80, question_tokens=1_024)

    async def session(engine: Engine) -> object:
        await engine.open(stream_id(0, owner="lost"), [prompt_window()])
        waiting = asyncio.create_task(engine.open(stream_id(1, owner="lost"), [prompt_window()]))
        await asyncio.sleep(0)
        await engine.release("lost")
        await engine.open(stream_id(0, owner="other"), [prompt_window()])
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        return outcome

    assert isinstance(serve(session, limits=room_for_one), Transient)


def test_who_is_cancelled_while_room_is_made_for_them_fails_nobody() -> None:
    """As asyncio's handler of SIGINT does it: between any two instructions."""
    tasks: list[asyncio.Task[None]] = []

    class Interrupted(Rank):
        def control(self, command: Control) -> None:
            super().control(command)
            while tasks:
                tasks.pop().cancel()

    async def session() -> list[str]:
        rank = Interrupted(MODEL.language, tiny_tokenizer(), eos_ids=(EOS,), limits=LIMITS)
        engine = Engine(rank)
        opening = asyncio.create_task(engine.open(stream_id(7), [SHOWN]))
        tasks.append(opening)
        with pytest.raises(asyncio.CancelledError):
            await opening
        await engine.close(stream_id(7))  # as whoever opens it does
        assert rank.streams == ()
        said = await one_video(engine, 0)
        engine.stop()
        return said

    assert asyncio.run(asyncio.wait_for(session(), DEADLINE_S)) == alone(0)


def test_when_all_tasks_are_cancelled_at_once_those_that_clean_up_are_still_served() -> None:
    """As asyncio.run does it at the end of a program that a signal ends."""

    async def session() -> tuple[object, ...]:
        engine = Engine(new_rank(MODEL))
        await fill(engine, stream_id(0), SHOWN, token_chunks(MODEL, SHOWN))
        is_writing = asyncio.Event()

        async def ask() -> None:
            try:
                async with aclosing(engine.ask(stream_id(0), [question(max_new_tokens=900)])) as it:
                    async for _ in it:
                        is_writing.set()
            finally:
                await engine.close(stream_id(0))

        asking = asyncio.create_task(ask())
        await is_writing.wait()
        await asyncio.sleep(0)  # a step is under way
        asking.cancel()
        engine._serving.cancel()
        done, _ = await asyncio.wait({asking}, timeout=DEADLINE_S / 2)
        assert asking in done
        return engine.rank.streams

    assert asyncio.run(asyncio.wait_for(session(), DEADLINE_S)) == ()


def test_who_is_cancelled_in_the_middle_of_cleaning_up_leaves_no_loop_behind() -> None:
    """As a second signal does: nothing outlives asyncio.run."""
    is_stepping, released = threading.Event(), threading.Event()

    class Slow(Rank):
        def run(self, commands: Commands) -> Report:
            is_stepping.set()
            released.wait(DEADLINE_S)
            return super().run(commands)

    async def session() -> bool:
        rank = Slow(MODEL.language, tiny_tokenizer(), eos_ids=(EOS,), limits=LIMITS)
        engine = Engine(rank)
        await engine.open(stream_id(0), [prompt_window()])
        chunk = token_chunks(MODEL, prompt_window())[0]
        prefilling = asyncio.create_task(engine.prefill(stream_id(0), chunk, number=0))
        await asyncio.to_thread(is_stepping.wait)
        closing = asyncio.create_task(engine.close(stream_id(0)))
        await asyncio.sleep(0)  # it waits for the step
        serving = engine._serving
        for task in (prefilling, closing, serving):
            task.cancel()
        await asyncio.wait({prefilling, closing, serving})
        await asyncio.sleep(0)
        is_over = engine._serving is serving
        released.set()
        engine.stop()
        return is_over

    assert asyncio.run(asyncio.wait_for(session(), DEADLINE_S))


def test_a_step_that_hangs_is_a_failure_that_is_told_once() -> None:
    released, failures = threading.Event(), []

    class Hanging(Rank):
        def run(self, commands: Commands) -> Report:
            released.wait(DEADLINE_S)
            return super().run(commands)

    async def session() -> None:
        rank = Hanging(MODEL.language, tiny_tokenizer(), eos_ids=(EOS,), limits=LIMITS)
        engine = Engine(rank, step_s=0.1, on_failure=failures.append)
        await engine.open(stream_id(0), [prompt_window()])
        with pytest.raises(Transient):
            await engine.prefill(stream_id(0), token_chunks(MODEL, prompt_window())[0], number=0)
        released.set()
        engine.stop()

    asyncio.run(asyncio.wait_for(session(), DEADLINE_S))
    assert [type(failure) for failure in failures] == [TimeoutError]


def test_a_request_has_the_next_room_however_many_of_a_batch_wait_and_these_have_their_turn() -> (
    None
):
    room_for_one = EngineLimits(max_tokens=1_024 + 80, question_tokens=1_024)

    async def session(engine: Engine) -> list[bool]:
        order: list[bool] = []

        async def pass_through(name: StreamId) -> None:
            await engine.open(name, [prompt_window()])
            order.append(name.yields)
            await engine.close(name)

        await engine.open(stream_id(0), [prompt_window()])
        batch = [stream_id(number, yields=True) for number in range(1, 4)]
        requests = [stream_id(number) for number in range(4, 4 + 2 * FAIR_EVERY)]
        passing = [asyncio.create_task(pass_through(name)) for name in (*batch, *requests)]
        await asyncio.sleep(0)  # all of them wait
        await engine.close(stream_id(0))
        await asyncio.gather(*passing)
        return order

    turns = [*[False] * FAIR_EVERY, True]
    assert serve(session, limits=room_for_one) == [*turns, *turns, True]


def lane(scheduler: Scheduler, number: int, *, yields: bool = False) -> Lane:
    """Of a new stream of this number."""
    name = stream_id(number, yields=yields)
    return scheduler.lanes.setdefault(name, Lane(name))


def add(lane: Lane, chunk: TokenChunk, *, left: int) -> None:
    number = lane.num_taken + len(lane.chunks)
    lane.chunks[number] = WaitingChunk(chunk, left, asyncio.Future(loop=LOOP))


def served(scheduler: Scheduler) -> list[int]:
    """The numbers of the streams whose chunks the next step takes; it is over at once."""
    step = scheduler.next_step(now_s=0.0)
    for each in scheduler.lanes.values():
        each.in_step = None
    return [stream.number for stream, _ in step.prefills]


def full_chunk(num_tokens: int = MAX_PREFILL_TOKENS) -> TokenChunk:
    return TokenChunk(plan_hash="p", window_index=0, index=0, tokens=torch.zeros(num_tokens, 1))


def test_a_short_video_waits_for_one_chunk_of_a_long_one_and_never_for_its_end() -> None:
    scheduler = Scheduler()
    for left in reversed(range(40)):
        add(lane(scheduler, 0), full_chunk(), left=left)
    order = [*served(scheduler), *served(scheduler)]
    add(lane(scheduler, 1), full_chunk(), left=0)
    order += [*served(scheduler), *served(scheduler)]
    assert order == [0, 0, 1, 0]


def test_of_two_long_videos_the_one_ahead_is_through_first_and_the_other_is_not_forgotten() -> None:
    scheduler, behind, ahead = Scheduler(), 0, 1
    for left in reversed(range(40)):
        add(lane(scheduler, behind), full_chunk(), left=left + 1)
        add(lane(scheduler, ahead), full_chunk(), left=left)
    order = [served(scheduler)[0] for _ in range(80)]
    last = max(i for i, number in enumerate(order) if number == ahead)
    assert order[:last].count(behind) == last // FAIR_EVERY > 0


def test_a_requests_chunks_go_before_those_of_a_batch_which_is_not_forgotten() -> None:
    scheduler, batch, request = Scheduler(), 0, 1
    for left in reversed(range(40)):
        add(lane(scheduler, batch, yields=True), full_chunk(), left=left)
        add(lane(scheduler, request), full_chunk(), left=left + 1)
    order = [served(scheduler)[0] for _ in range(80)]
    last = max(i for i, number in enumerate(order) if number == request)
    assert order[:last].count(batch) == last // FAIR_EVERY > 0


def test_a_step_takes_no_more_video_tokens_than_its_limit_except_one_large_chunk() -> None:
    scheduler = Scheduler()
    for number in (0, 1):
        add(lane(scheduler, number), full_chunk(MAX_PREFILL_TOKENS + 1), left=0)
    assert served(scheduler) == [0]
    assert served(scheduler) == [1]


def test_a_stream_has_one_chunk_under_way_at_a_time() -> None:
    scheduler = Scheduler()
    for left in (1, 0):
        add(lane(scheduler, 0), full_chunk(1), left=left)
    assert len(scheduler.next_step(now_s=0.0).prefills) == 1
    assert not scheduler.next_step(now_s=0.0)


def test_words_wait_for_company_only_while_other_videos_are_on_their_way() -> None:
    def begin(number: int) -> GenerationId:
        name = GenerationId(stream_id(number), number)
        lane(scheduler, number).writers[name] = Writer(0, asyncio.Queue(), is_running=True)
        scheduler.hurry()
        return name

    scheduler = Scheduler(gap_s=0.5)
    lane(scheduler, 9)
    one = begin(1)
    assert scheduler.words_wait_s(now_s=10.0) <= 0  # a first word never waits
    assert scheduler.next_step(now_s=10.0).generations == (one,)
    assert scheduler.words_wait_s(now_s=10.1) == pytest.approx(0.4)
    assert not scheduler.next_step(now_s=10.1)
    del scheduler.lanes[stream_id(9)]
    assert scheduler.words_wait_s(now_s=10.1) <= 0  # nobody else comes
    lane(scheduler, 9)
    assert scheduler.words_wait_s(now_s=10.6) <= 0
    two = begin(2)
    assert scheduler.words_wait_s(now_s=10.1) <= 0
    assert scheduler.next_step(now_s=10.1).generations == (one, two)


def test_an_answer_goes_on_by_itself_beside_a_video_that_never_comes() -> None:
    async def session() -> list[str]:
        engine = Engine(new_rank(MODEL), gap_s=0.01)
        shown = prompt_window(plan_hash="plan0")
        try:
            await engine.open(stream_id(5), [prompt_window(plan_hash="plan1")])
            await fill(engine, stream_id(0), shown, token_chunks(MODEL, shown, seed=0))
            return await answers(engine, stream_id(0), seeds=range(3))
        finally:
            engine.stop()

    assert asyncio.run(asyncio.wait_for(session(), DEADLINE_S)) == alone(0)


def test_a_question_to_a_stream_that_is_gone_is_refused_and_does_not_wait() -> None:
    async def session(engine: Engine) -> None:
        await fill(engine, stream_id(0), SHOWN, token_chunks(MODEL, SHOWN, seed=0))
        await engine.close(stream_id(0))
        with pytest.raises(Transient, match="no such stream"):
            await answers(engine, stream_id(0), seeds=range(1))

    serve(session)
