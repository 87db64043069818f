"""Videos that stay open: watched once, asked often, watched again with equal words when lost."""

import asyncio
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.serve.local_host import LocalHost
from pipeline.config import Sampling, SessionLimits
from pipeline.engine.cache import KVCache
from pipeline.engine.constraint import Choices
from pipeline.engine.engine import Engine
from pipeline.errors import BadInput, FailureCode, SessionClosed, Transient
from pipeline.events import Event, Moved, Planned, Words, ignore
from pipeline.local import LocalFlow, LocalModel
from pipeline.session import Session
from pipeline.sessions import Sessions
from pipeline.tasks.requests import View, make_views
from pipeline.tasks.tasks import Ask, Ground, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from tests.media_factory import CHUNKED, Clip, make
from tests.sessions import run, until

SAMPLING = Sampling(max_new_tokens=8)
WINDOWS = PlanOptions(fps=12.0, long="windows", max_window_tokens=128)


def counted(heard: list[Event]) -> Counter[str]:
    """Chunks that went through each stage."""
    return Counter(event.stage for event in heard if isinstance(event, Moved))


def test_a_video_is_watched_once_for_any_number_of_questions(flow: LocalFlow, source: Source):
    heard: list[Event] = []

    async def work() -> None:
        async with Session(flow, source) as session:
            num_chunks = len(session.plan.windows[0].chunks)
            first = await session.ask(["Why?"], sampling=SAMPLING, listener=heard.append)
            assert counted(heard) == dict.fromkeys(("read", "encode", "prefill"), num_chunks)
            heard.clear()
            again = await session.ask(["Why?", "How?"], sampling=SAMPLING, listener=heard.append)
            assert counted(heard) == {}
            assert again[0].answer == first[0].answer
            (planned,) = (event for event in heard if isinstance(event, Planned))
            assert planned.num_steps == 0
            words = "".join(
                each.text
                for each in heard
                if isinstance(each, Words) and each.request.subject == "How?"
            )
            assert words == again[1].answer.answer

    run(work())


def test_a_follow_up_goes_on_with_its_conversation_and_others_with_theirs(
    flow: LocalFlow, source: Source
):
    async def work() -> None:
        async with Session(flow, source) as session:
            why, how = await session.ask(["Why?", "How?"], sampling=SAMPLING)
            (after_why,) = await session.ask(["And then?"], sampling=SAMPLING, after=why)
            (after_how,) = await session.ask(["And then?"], sampling=SAMPLING, after=how)
            (fresh,) = await session.ask(["And then?"], sampling=SAMPLING)
            third = await session.ask(["Really?"], sampling=SAMPLING, after=after_why)
            conversations = [
                each.conversation[None] for each in (why, after_why, *third, after_how, fresh)
            ]
            why_ids, after_ids, third_ids, _, fresh_ids = conversations
            assert after_ids[: len(why_ids)] == why_ids
            assert third_ids[: len(after_ids)] == after_ids
            assert fresh_ids[: len(why_ids)] != why_ids
            assert len({ids for ids in conversations}) == len(conversations)
            assert (
                after_how.conversation[None][: len(how.conversation[None])]
                == (how.conversation[None])
            )

    run(work())


def test_a_conversation_as_texts_is_the_one_that_was_written(flow: LocalFlow, source: Source):
    async def work() -> None:
        async with Session(flow, source) as session:
            (why,) = await session.ask(["Why?"], sampling=SAMPLING)
            (again,) = await session.ask(
                ["And?"], sampling=SAMPLING, turns=[("Why?", why.answer.answer)]
            )
            begun = again.conversation[None]
            asked = session._flow.model.prompts.conversation([("Why?", why.answer.answer)])
            assert begun[: len(asked)] == asked
            assert (
                asked[: len(why.conversation[None]) - SAMPLING.max_new_tokens]
                == (why.conversation[None][: -SAMPLING.max_new_tokens])
            )

    run(work())


def test_tokens_are_counted_as_new_once(flow: LocalFlow, source: Source):
    async def work() -> None:
        async with Session(flow, source) as session:
            first, second = await session.ask(["Why?", "How?"], sampling=SAMPLING)
            (third,) = await session.ask(["And?"], sampling=SAMPLING, after=first)
            num_video = session.plan.num_tokens
            assert [each.usage.num_video for each in (first, second, third)] == [num_video] * 3
            assert (first.usage.num_cached, third.usage.num_cached) == (0, num_video)
            assert third.usage.num_prompt > first.usage.num_prompt > num_video
            assert first.usage.num_completion == SAMPLING.max_new_tokens

    run(work())


def test_a_stream_that_was_lost_is_watched_again_with_equal_words(
    flow: LocalFlow, local_model: LocalModel, source: Source
):
    heard: list[Event] = []

    async def work() -> None:
        async with Session(flow, source) as session:
            (first,) = await session.ask(["Why?"], sampling=SAMPLING)
            (stream,) = local_model.rank.streams
            (decoder,) = flow._decoders.members
            await decoder.close(stream)  # as a restart loses it
            with pytest.raises(Transient):
                await session.ask(["Why?"], sampling=SAMPLING)
            (again,) = await session.ask(["Why?"], sampling=SAMPLING, listener=heard.append)
            assert again == first
            assert counted(heard)["prefill"] > 0

    run(work())


def test_a_loss_is_told_at_once_where_only_one_chunk_may_be_on_its_way(
    local_model: LocalModel, source: Source
):
    """As with the largest models: what is lost gives its room back, or nobody reads on."""
    flow = LocalFlow(local_model, options=PlanOptions(fps=12.0), video_bytes=1)
    (decoder,) = flow._decoders.members

    def lose(event: Event) -> None:
        if isinstance(event, Moved) and event.stage == "prefill":
            for stream in local_model.rank.streams:
                losing.append(asyncio.ensure_future(decoder.close(stream)))

    losing = list[asyncio.Task[None]]()

    async def work() -> None:
        async with Session(flow, source) as session:
            with pytest.raises(Transient):
                await session.ask(["Why?"], sampling=SAMPLING, listener=lose)

    run(work())
    assert losing
    flow.close()


def test_a_closed_session_says_so_and_watches_nothing(
    flow: LocalFlow, local_model: LocalModel, source: Source
):
    heard: list[Event] = []

    async def work() -> None:
        in_fleet = LocalHost(flow).session(source)
        async with Session(flow, source) as session, in_fleet:
            await session.ask(["Why?"], sampling=SAMPLING)
        for closed in (session, in_fleet):
            for asking in (
                closed.ask(["Why?"], sampling=SAMPLING, listener=heard.append),
                closed.ground("a dog", sampling=SAMPLING, listener=heard.append),
                closed.open(),
            ):
                with pytest.raises(SessionClosed):
                    await asking
        assert (flow._readers.members[0].videos, counted(heard)) == ((), {})

    run(work())


def test_what_was_being_watched_when_its_session_was_closed_holds_nothing(
    flow: LocalFlow, local_model: LocalModel, source: Source
):
    closing = list[asyncio.Task[None]]()

    async def work() -> None:
        async with Session(flow, source) as session:

            def close(event: Event) -> None:
                if isinstance(event, Moved) and event.stage == "prefill" and not closing:
                    closing.append(asyncio.ensure_future(session.close()))

            with pytest.raises(SessionClosed):
                await session.ask(["Why?"], sampling=SAMPLING, listener=close)
            await asyncio.gather(*closing)
            assert (local_model.rank.streams, flow._readers.members[0].videos) == ((), ())

    run(work())


def test_a_session_at_rest_holds_nothing_and_asks_on(
    flow: LocalFlow, local_model: LocalModel, source: Source
):
    async def work() -> None:
        async with Session(flow, source) as session:
            (first,) = await session.ask(["Why?"], sampling=SAMPLING)
            assert session.num_tokens > 0
            assert flow._readers.members[0].videos == ()  # frames are read no more
            await session.rest()
            assert (session.num_tokens, local_model.rank.streams) == (0, ())
            assert (await session.ask(["Why?"], sampling=SAMPLING)) == [first]

    run(work())


def test_questions_at_the_same_time_share_one_watching(flow: LocalFlow, source: Source):
    heard: list[Event] = []

    async def work() -> None:
        async with Session(flow, source) as session:
            asks = [
                session.ask([question], sampling=SAMPLING, listener=heard.append)
                for question in ("Why?", "How?", "When?")
            ]
            together = [reply for (reply,) in await asyncio.gather(*asks)]
            assert counted(heard)["read"] == len(session.plan.windows[0].chunks)
            one_by_one = [
                (await session.ask([each.answer.question], sampling=SAMPLING))[0]
                for each in together
            ]
            assert one_by_one == together

    run(work())


def test_windows_are_asked_one_by_one_and_followed_up_one_by_one(
    local_model: LocalModel, source: Source
):
    flow = LocalFlow(local_model, options=WINDOWS)

    async def work() -> None:
        async with Session(flow, source) as session:
            num_windows = len(session.plan.windows)
            assert num_windows > 2
            (first,) = await session.ask(["Why?"], sampling=SAMPLING)
            assert first.answer.window_index is None
            assert set(first.conversation) == set(range(num_windows))
            (second,) = await session.ask(["And?"], sampling=SAMPLING, after=first)
            for window in range(num_windows):
                said = first.conversation[window]
                assert second.conversation[window][: len(said)] == said

    run(work())
    flow.close()


def test_those_that_wait_for_room_at_the_same_time_share_one_watching_and_hold_no_more(
    flow: LocalFlow, local_model: LocalModel, source: Source
):
    """Both streams of a session are in use as the same still is wanted twice, and another once."""

    async def work() -> None:
        async with Session(flow, source, max_streams=2) as session:
            viewer = session._viewer
            times_s = (0.0, 0.5, 1.0, 1.5)
            tasks = Tasks(caption=None, grounds=(Ground(query="a dog", times_s=times_s),))
            views = make_views(session.plan, tasks, still_at=viewer.facts.still_at)
            numbers = list[int]()  # of the streams, in the order of their use
            may_end = asyncio.Event()

            async def use(view: View, *, held: bool = False) -> None:
                async with viewer.seen(view, ignore) as watched:
                    numbers.append(watched.stream.name.number)
                    assert len(local_model.rank.streams) <= 2
                    await (may_end.wait() if held else asyncio.sleep(0))

            held = [asyncio.create_task(use(view, held=True)) for view in views[:2]]
            await until(lambda: len(numbers) == 2)
            waiting = [asyncio.create_task(use(views[index])) for index in (2, 2, 3)]
            await until(lambda: len(viewer._turn._waiters) == 3)
            may_end.set()
            await asyncio.gather(*held, *waiting)
            assert len(set(numbers)) == 4
            assert len(local_model.rank.streams) == 2

    run(work())


def test_answers_keep_their_bounds_and_boxes_their_picture(flow: LocalFlow, source: Source):
    async def work() -> None:
        async with Session(flow, source) as session:
            asked = Ask(question="Which?", constraint=Choices(("red", "blue")))
            (reply,) = await session.ask([asked], sampling=SAMPLING)
            assert reply.answer.answer in ("red", "blue")
            boxes = await session.ground("the dog", times_s=(0.5, 1.0), sampling=SAMPLING)
            assert {box.time_s for box in boxes} == {0.5, 1.0}

    run(work())


def test_a_place_that_is_looked_for_leaves_the_video_watched(flow: LocalFlow, source: Source):
    heard: list[Event] = []

    async def work() -> None:
        async with Session(flow, source) as session:
            (why,) = await session.ask(["Why?"], sampling=SAMPLING)
            for time_s in (0.5, 1.0):
                await session.ground("the dog", times_s=(time_s,), sampling=SAMPLING)
            await session.ground(
                "the cat", times_s=(1.0,), sampling=SAMPLING, listener=heard.append
            )
            assert counted(heard) == {}  # the still is kept as well
            again, _ = await session.ask(["Why?", "How?"], sampling=SAMPLING, listener=heard.append)
            assert counted(heard) == {}
            assert again.answer == why.answer

    run(work())


def test_a_watched_video_gives_way_to_a_place_in_it_that_has_no_room_beside_it(
    flow: LocalFlow, local_model: LocalModel, source: Source
):
    admission = local_model.rank.admission

    async def work() -> None:
        async with Session(flow, source) as session:
            (why,) = await session.ask(["Why?"], sampling=SAMPLING)
            with pytest.MonkeyPatch.context() as patch:
                full = replace(admission.limits, max_tokens=session.num_tokens)
                patch.setattr(admission, "limits", full)
                await session.ground("the dog", times_s=(0.5,), sampling=SAMPLING)
            (again,) = await session.ask(["Why?"], sampling=SAMPLING)
            assert again.answer == why.answer

    run(work())


def test_a_question_that_cannot_be_asked_has_its_code_and_leaves_the_others(
    flow: LocalFlow, source: Source
):
    async def work() -> None:
        async with Session(flow, source) as session:
            long, good = await session.ask(["?" * 3_000, "Why?"], sampling=SAMPLING)
            assert (long.answer.code, good.answer.code) == (FailureCode.PROMPT_TOO_LONG, None)

    run(work())


def test_another_video_in_the_place_of_the_first_is_refused(
    flow: LocalFlow, source: Source, tmp_path: Path
):
    path = tmp_path / "clip.mp4"
    path.write_bytes(source.path.read_bytes())

    async def work() -> None:
        async with Session(flow, Source.of(path)) as session:
            await session.ask(["Why?"], sampling=SAMPLING)
            await session.rest()
            make(tmp_path, Clip(num_frames=48, **CHUNKED), "other").replace(path)
            with pytest.raises(BadInput) as refused:
                await session.ask(["Why?"], sampling=SAMPLING)
            assert refused.value.code is FailureCode.SOURCE_CHANGED

    run(work())


def test_whoever_asks_never_waits_for_keys_and_values_to_be_copied(
    flow: LocalFlow, source: Source, monkeypatch: pytest.MonkeyPatch
):
    """They are forked and copied on the thread that computes, never on that of the event loop."""
    threads: set[int] = set()
    like = KVCache._like

    def noted(self: KVCache, *arguments: Any, **options: Any) -> KVCache:
        threads.add(threading.get_ident())
        return like(self, *arguments, **options)

    async def work() -> None:
        async with Session(flow, source) as session:
            await session.ask(["Why?", "How?"], sampling=SAMPLING)

    monkeypatch.setattr(KVCache, "_like", noted)
    run(work())
    assert threads
    assert threading.get_ident() not in threads


def test_idle_sessions_give_way_the_longest_idle_first(
    flow: LocalFlow, local_model: LocalModel, source: Source
):
    async def work() -> None:
        one_session = SessionLimits(max_tokens=2_000)
        sessions = Sessions(flow, one_session)
        ids = [(await sessions.open(source))[0] for _ in range(3)]
        for session_id in ids:
            async with sessions.using(session_id) as session:
                assert session.num_tokens == 0
                await session.ask(["Why?"], sampling=SAMPLING)
            await until(lambda: len(local_model.rank.streams) == 1)
        async with sessions.using(ids[-1]) as session:
            assert session.num_tokens > 0
        for session_id in ids:
            await sessions.close(session_id)
        with pytest.raises(Transient, match="no such session"):
            async with sessions.using(ids[0]):
                pass

    run(work())


def test_who_idles_gives_way_to_who_waits_for_room(flow: LocalFlow, source: Source):
    """Also where the limits would let more idle than there is room for."""

    async def work() -> None:
        sessions = Sessions(flow, SessionLimits(max_tokens=1_000_000))
        ids = [(await sessions.open(source))[0] for _ in range(5)]
        for session_id in ids:  # 3,328 tokens each; there is room for 8,192
            async with sessions.using(session_id) as session:
                (reply,) = await session.ask(["Why?"], sampling=SAMPLING)
                assert reply.answer.code is None
        for session_id in ids:
            await sessions.close(session_id)

    run(work())


def test_who_waits_for_room_and_leaves_leaves_nothing(flow: LocalFlow, source: Source):
    async def work() -> None:
        sessions = Sessions(flow, SessionLimits(max_tokens=1_000_000))
        ids = [(await sessions.open(source))[0] for _ in range(3)]

        async def ask(session_id: str, max_new_tokens: int) -> None:
            async with sessions.using(session_id) as session:
                await session.ask(["Why?"], sampling=Sampling(max_new_tokens=max_new_tokens))

        busy = [asyncio.create_task(ask(each, 500)) for each in ids[:2]]
        waiting = asyncio.create_task(ask(ids[2], 8))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(*busy)
        for session_id in ids:
            await sessions.close(session_id)

    run(work())


def test_a_session_that_idles_too_long_rests(
    flow: LocalFlow, local_model: LocalModel, source: Source
):
    async def work() -> None:
        sessions = Sessions(flow, SessionLimits(idle_s=0.05, forget_s=1_000))
        session_id, _ = await sessions.open(source)
        async with sessions.using(session_id) as session:
            await session.ask(["Why?"], sampling=SAMPLING)
        await until(lambda: not local_model.rank.streams)
        assert sessions.num_open == 1
        await sessions.close(session_id)

    run(work())


def test_a_session_that_idles_for_ever_is_forgotten(
    flow: LocalFlow, local_model: LocalModel, source: Source
):
    async def work() -> None:
        sessions = Sessions(flow, SessionLimits(idle_s=0.05, forget_s=0.05))
        session_id, _ = await sessions.open(source)
        async with sessions.using(session_id) as session:
            await session.ask(["Why?"], sampling=SAMPLING)
        await until(lambda: sessions.num_open == 0 and not local_model.rank.streams)
        with pytest.raises(Transient):
            async with sessions.using(session_id):
                pass

    run(work())


def test_a_session_that_nobody_ever_asks_is_forgotten(flow: LocalFlow, source: Source):
    async def work() -> None:
        sessions = Sessions(flow, SessionLimits(idle_s=0.05, forget_s=0.05))
        await sessions.open(source)
        await until(lambda: sessions.num_open == 0)

    run(work())


def test_a_session_whose_question_is_refused_before_it_is_asked_is_forgotten(
    flow: LocalFlow, source: Source
):
    async def work() -> None:
        sessions = Sessions(flow, SessionLimits(idle_s=0.05, forget_s=0.05))
        session_id, _ = await sessions.open(source)
        with pytest.raises(BadInput):
            async with sessions.using(session_id) as session:
                await session.ask([""], sampling=SAMPLING)
        await until(lambda: sessions.num_open == 0)

    run(work())


def test_a_session_that_is_used_is_not_forgotten_though_its_time_was_up(
    flow: LocalFlow, source: Source
):
    async def work() -> None:
        sessions = Sessions(flow, SessionLimits())
        session_id, session = await sessions.open(source)
        sessions._do(lambda: sessions._forget(session))  # as the timer does
        async with sessions.using(session_id):
            await asyncio.gather(*sessions._chores)
            (reply,) = await session.ask(["Why?"], sampling=SAMPLING)
        assert reply.answer.code is None
        await sessions.close(session_id)

    run(work())


def test_the_engine_of_a_closed_event_loop_serves_the_next_one(
    flow: LocalFlow, local_model: LocalModel, source: Source
):
    """Programs call asyncio.run as often as they like."""

    async def ask() -> Any:
        async with Session(flow, source) as session:
            return await session.ask(["Why?"], sampling=replace(SAMPLING, seed=3))

    assert run(ask()) == run(ask())
    assert isinstance(flow._decoders.members[0], Engine)
