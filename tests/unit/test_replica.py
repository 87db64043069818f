"""Many streams on one replica: each gets the words it would get alone; none hurts another."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import torch

from pipeline.config import EngineLimits
from pipeline.engine.answer import Answer
from pipeline.engine.commands import Commands, Report, Step
from pipeline.engine.engine import Replica
from pipeline.engine.layout import PromptWindow
from pipeline.engine.order import FAIR_EVERY
from pipeline.engine.rank import Rank
from pipeline.engine.scheduler import MAX_PREFILL_TOKENS, Schedule
from pipeline.errors import BadInput, FailureCode, StreamError, Transient
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.types import TokenChunk
from tests.streams import (
    COLUMNS,
    EOS,
    LIMITS,
    ROWS,
    STEPS,
    frame_chunks,
    new_engine,
    prompt_window,
    question,
    token_chunks,
)
from tests.tiny_model import Tiny, random_frames, tiny_model
from tests.tiny_tokenizer import tiny_tokenizer

MODEL = tiny_model(Tiny(seed=5))
DEADLINE_S = 60
SHOWN = prompt_window(plan_hash="plan0")
Session = Callable[[Replica], Awaitable[object]]


def new_rank(model: Qwen2VL = MODEL, *, limits: EngineLimits = LIMITS) -> Rank:
    return Rank(model.language, tiny_tokenizer(), eos_ids=(EOS,), limits=limits)


def serve(session: Session, *, limits: EngineLimits = LIMITS, peer: Rank | None = None) -> object:
    """Run a session against a replica, and end the replica with it."""

    async def broadcast(commands: Commands) -> None:
        if peer is not None:
            peer.run(commands)

    async def run() -> object:
        replica = Replica(new_rank(limits=limits), broadcast=broadcast)
        async with AsyncExitStack() as stack:
            stack.callback(replica.stop)
            return await asyncio.wait_for(session(replica), DEADLINE_S)

    return asyncio.run(run())


async def nobody_else(commands: Commands) -> None:
    """There are no other ranks."""


async def fill(replica: Replica, name: str, shown: PromptWindow, chunks: list[TokenChunk]) -> None:
    await replica.open(name, [shown])
    for chunk in chunks:
        await replica.prefill(name, chunk)


async def answers(replica: Replica, name: str, *, seeds: range) -> list[str]:
    questions = [question(3 + seed, seed=seed, max_new_tokens=12) for seed in seeds]
    results: dict[int, str] = {}
    async for piece in replica.ask(name, questions):
        if isinstance(piece.result, Answer):
            results[piece.question_index] = piece.result.text
    return [results[index] for index in range(len(questions))]


def alone(seed: int) -> list[str]:
    """What the plain engine says of the video of this seed."""
    shown = prompt_window(plan_hash=f"plan{seed}")
    with new_engine(MODEL).open([shown]) as stream:
        for chunk in token_chunks(MODEL, shown, seed=seed):
            stream.prefill(chunk)
        asked = [question(3 + s, seed=s, max_new_tokens=12) for s in range(3)]
        return [answer.text for answer in stream.ask_many(asked)]


async def one_video(replica: Replica, seed: int) -> list[str]:
    shown = prompt_window(plan_hash=f"plan{seed}")
    name = f"video{seed}"
    await fill(replica, name, shown, token_chunks(MODEL, shown, seed=seed))
    said = await answers(replica, name, seeds=range(3))
    await replica.close(name)
    return said


def test_videos_served_together_get_the_words_each_gets_alone() -> None:
    async def session(replica: Replica) -> list[list[str]]:
        return list(await asyncio.gather(*(one_video(replica, seed) for seed in range(4))))

    assert serve(session) == [alone(seed) for seed in range(4)]


def test_a_peer_rank_given_the_same_commands_holds_the_same_streams() -> None:
    peer = new_rank()

    async def session(replica: Replica) -> list[str]:
        said = await one_video(replica, 0)
        await replica.open("left-open", [prompt_window()])
        return said

    assert serve(session, peer=peer) == alone(0)
    assert peer.num_free_tokens == LIMITS.max_tokens - prompt_window().num_tokens - 1_024


def test_a_video_without_room_waits_until_another_closes() -> None:
    room_for_one = EngineLimits(max_tokens=1_024 + 80, question_tokens=1_024)
    events: list[str] = []

    async def session(replica: Replica) -> None:
        await replica.open("first", [prompt_window()])

        async def second() -> None:
            await replica.open("second", [prompt_window()])
            events.append("second opened")

        waiting = asyncio.create_task(second())
        for chunk in token_chunks(MODEL, prompt_window()):
            await replica.prefill("first", chunk)  # the loop went round: second had its chance
        events.append("first closed")
        await replica.close("first")
        await waiting

    serve(session, limits=room_for_one)
    assert events == ["first closed", "second opened"]


def test_the_urgent_one_of_two_waiting_videos_goes_first() -> None:
    room_for_one = EngineLimits(max_tokens=1_024 + 80, question_tokens=1_024)
    opened: list[str] = []

    async def session(replica: Replica) -> None:
        await replica.open("holder", [prompt_window()])

        async def wait(name: str, urgency: int) -> None:
            await replica.open(name, [prompt_window()], urgency=urgency)
            opened.append(name)
            await replica.close(name)

        tasks = [
            asyncio.create_task(wait(name, urgency))
            for name, urgency in (("batch", 2), ("scheduled", 1), ("online", 0))
        ]
        await replica.prefill("holder", token_chunks(MODEL, prompt_window())[0])
        await replica.close("holder")
        await asyncio.gather(*tasks)

    serve(session, limits=room_for_one)
    assert opened == ["online", "scheduled", "batch"]


def test_a_video_that_can_never_fit_is_refused_at_once() -> None:
    tiny = EngineLimits(max_tokens=20, question_tokens=10)

    async def session(replica: Replica) -> None:
        await replica.open("big", [prompt_window()])

    with pytest.raises(BadInput) as caught:
        serve(session, limits=tiny)
    assert caught.value.code is FailureCode.TOKEN_BUDGET


def test_a_wrong_chunk_is_its_own_streams_error_and_neighbours_go_on() -> None:
    async def session(replica: Replica) -> list[str]:
        await replica.open("wrong", [prompt_window(plan_hash="other plan")])
        strange = token_chunks(MODEL, prompt_window(plan_hash="plan0"))[0]
        neighbour = asyncio.create_task(one_video(replica, 0))
        with pytest.raises(StreamError, match="other plan"):
            await replica.prefill("wrong", strange)
        return await neighbour

    assert serve(session) == alone(0)


def test_a_cancelled_answer_frees_its_room_and_a_closed_stream_its_tokens() -> None:
    rank = new_rank()

    async def session() -> None:
        replica = Replica(rank, broadcast=nobody_else)
        shown = prompt_window()
        await fill(replica, "video", shown, token_chunks(MODEL, shown))
        async for _ in replica.ask("video", [question(max_new_tokens=500)]):
            break  # the listener leaves after the first piece
        for _ in range(3):  # 507 of 1,024 tokens each: only freed room lets the next begin
            async for _ in replica.ask("video", [question(max_new_tokens=500)]):
                break
        await replica.close("video")
        replica.stop()

    asyncio.run(asyncio.wait_for(session(), DEADLINE_S))
    assert rank.num_free_tokens == LIMITS.max_tokens


def test_everyone_who_waits_hears_of_a_failed_rank() -> None:
    class Broken(Rank):
        def run(self, commands: Commands) -> None:
            raise RuntimeError("lost its peer")

    async def session() -> list[object]:
        rank = Broken(MODEL.language, tiny_tokenizer(), eos_ids=(EOS,), limits=LIMITS)
        replica = Replica(rank, broadcast=nobody_else)
        await replica.open("video", [prompt_window()])
        chunks = token_chunks(MODEL, prompt_window())
        both = [replica.prefill("video", chunk) for chunk in chunks[:2]]
        results = await asyncio.gather(*both, return_exceptions=True)
        late = await asyncio.gather(replica.open("late", []), return_exceptions=True)
        replica.stop()
        return [*results, *late]

    failures = asyncio.run(asyncio.wait_for(session(), DEADLINE_S))
    assert [type(failure) for failure in failures] == [Transient] * 3


def test_a_closed_stream_lets_go_of_everybody_who_waits_for_it() -> None:
    room_for_one = EngineLimits(max_tokens=1_024 + 80, question_tokens=1_024)

    async def session(replica: Replica) -> list[object]:
        shown = prompt_window()
        chunks = token_chunks(MODEL, shown)
        await fill(replica, "video", shown, chunks)
        waiting = [
            asyncio.create_task(replica.open("without room", [shown])),
            asyncio.create_task(answers(replica, "video", seeds=range(3))),
        ]
        late = asyncio.create_task(replica.prefill("video", chunks[0]))
        await asyncio.sleep(0)
        await replica.close("without room")
        await replica.close("video")
        outcome = await asyncio.gather(*waiting, late, return_exceptions=True)
        await replica.open("next", [shown])  # all room is free again, and nobody stands before it
        return outcome

    outcomes = serve(session, limits=room_for_one)
    assert [type(each) for each in outcomes] == [Transient] * 3


def test_of_a_lost_host_neither_open_nor_waiting_streams_are_left() -> None:
    room_for_one = EngineLimits(max_tokens=1_024 + 80, question_tokens=1_024)

    async def session(replica: Replica) -> object:
        await replica.open("lost/0", [prompt_window()])
        waiting = asyncio.create_task(replica.open("lost/1", [prompt_window()]))
        await asyncio.sleep(0)
        await replica.release("lost")
        await replica.open("other/0", [prompt_window()])
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        return outcome

    assert isinstance(serve(session, limits=room_for_one), Transient)


def test_a_step_that_hangs_is_a_failure_that_is_told_once() -> None:
    released, failures = threading.Event(), []

    class Hanging(Rank):
        def run(self, commands: Commands) -> Report:
            released.wait(DEADLINE_S)
            return super().run(commands)

    async def session() -> None:
        rank = Hanging(MODEL.language, tiny_tokenizer(), eos_ids=(EOS,), limits=LIMITS)
        replica = Replica(rank, broadcast=nobody_else, step_s=0.1, on_failure=failures.append)
        await replica.open("video", [prompt_window()])
        with pytest.raises(Transient):
            await replica.prefill("video", token_chunks(MODEL, prompt_window())[0])
        released.set()
        replica.stop()

    asyncio.run(asyncio.wait_for(session(), DEADLINE_S))
    assert [type(failure) for failure in failures] == [TimeoutError]


def test_a_short_video_waits_for_one_chunk_of_a_long_one_and_never_for_its_end() -> None:
    schedule = Schedule()
    chunk = token_chunks(MODEL, prompt_window((1,) * 6, plan_hash="long"))[0]
    full = replace(chunk, tokens=torch.zeros(MAX_PREFILL_TOKENS, 1))
    for left in reversed(range(40)):
        schedule.add_chunk("long", full, left=left)
    served = [stream for [(stream, _)] in (schedule.next_prefills() for _ in range(2))]
    schedule.add_chunk("short", full, left=0)
    served += [schedule.next_prefills()[0][0] for _ in range(2)]
    assert served == ["long", "long", "short", "long"]


def test_of_two_long_videos_the_one_ahead_is_through_first_and_the_other_is_not_forgotten() -> None:
    schedule = Schedule()
    chunk = token_chunks(MODEL, prompt_window((1,) * 6, plan_hash="long"))[0]
    full = replace(chunk, tokens=torch.zeros(MAX_PREFILL_TOKENS, 1))
    for left in reversed(range(40)):
        schedule.add_chunk("behind", full, left=left + 1)
        schedule.add_chunk("ahead", full, left=left)
    served = [schedule.next_prefills()[0][0] for _ in range(80)]
    last = max(i for i, stream in enumerate(served) if stream == "ahead")
    assert served[:last].count("behind") == last // FAIR_EVERY > 0


def test_a_step_takes_no_more_video_tokens_than_its_limit_except_one_large_chunk() -> None:
    frames = random_frames(2 * STEPS, ROWS, COLUMNS)
    chunk = frame_chunks(prompt_window((6,)), frames)[0]
    huge = TokenChunk(
        plan_hash="p", window_index=0, index=0, tokens=chunk.frames.new_zeros(
            MAX_PREFILL_TOKENS + 1, 1
        ),
    )  # fmt: skip
    schedule = Schedule()
    schedule.add_chunk("huge", huge, left=0)
    schedule.add_chunk("other", huge, left=0)
    work = Step(schedule.next_prefills(), ())
    assert [stream for stream, _ in work.prefills] == ["huge"]
    assert [stream for stream, _ in schedule.next_prefills()] == ["other"]


def test_words_wait_for_company_only_while_other_videos_are_on_their_way() -> None:
    schedule = Schedule(gap_s=0.5)
    schedule.begin_turn("one#0")
    assert schedule.words_wait_s(num_streams=2, now_s=10.0) <= 0  # a first word never waits
    assert schedule.next_turns(now_s=10.0) == ("one#0",)
    assert schedule.words_wait_s(num_streams=2, now_s=10.1) == pytest.approx(0.4)
    assert schedule.words_wait_s(num_streams=1, now_s=10.1) <= 0
    assert schedule.words_wait_s(num_streams=2, now_s=10.6) <= 0
    schedule.begin_turn("two#1")
    assert schedule.words_wait_s(num_streams=3, now_s=10.1) <= 0
    assert schedule.next_turns(now_s=10.1) == ("one#0", "two#1")


def test_an_answer_goes_on_by_itself_beside_a_video_that_never_comes() -> None:
    async def session() -> list[str]:
        replica = Replica(new_rank(), broadcast=nobody_else, gap_s=0.01)
        shown = prompt_window(plan_hash="plan0")
        try:
            await replica.open("stuck", [prompt_window(plan_hash="plan1")])
            await fill(replica, "video", shown, token_chunks(MODEL, shown, seed=0))
            return await answers(replica, "video", seeds=range(3))
        finally:
            replica.stop()

    assert asyncio.run(asyncio.wait_for(session(), DEADLINE_S)) == alone(0)


def test_a_question_to_a_stream_that_is_gone_is_refused_and_does_not_wait() -> None:
    async def session(replica: Replica) -> None:
        await fill(replica, "video", SHOWN, token_chunks(MODEL, SHOWN, seed=0))
        await replica.close("video")
        with pytest.raises(Transient, match="no such stream"):
            await answers(replica, "video", seeds=range(1))

    serve(session)
