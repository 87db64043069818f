"""What every reader, encoder and decoder behind the ports promises, wherever it is.

A test class with these tests gives them a fixture `ports`. The video goes through real parts.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import EngineLimits, Sampling
from pipeline.engine.ids import StreamId
from pipeline.engine.question import Completion, Question, TextDelta
from pipeline.errors import BadInput, FailureCode, StreamError, Transient
from pipeline.ports import Decoder, Encoder, FrameReader
from pipeline.served_model import ServedModel
from pipeline.tasks.requests import View, make_views
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.source import Source
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder
from tests.tiny_model import Tiny

DEADLINE_S = 100
LIMITS = EngineLimits(max_tokens=4_096, question_tokens=512)
TASKS = Tasks(
    caption=None,
    asks=(Ask(question="How many?"), Ask(question="Why?")),
    sampling=Sampling(max_new_tokens=9),
)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The parts under test. open_streams: of the decoder, asked from outside the port; those that
    wait to be open, too.
    """

    reader: FrameReader[Any]
    encoder: Encoder[Any, Any]
    decoder: Decoder[Any]
    open_streams: Any


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A checkpoint, a clip of several chunks, and what is to be seen of it."""

    checkpoint: Path
    source: Source
    model: ServedModel
    planner: Planner

    @classmethod
    def make(cls, folder: Path, shape: Tiny | None = None) -> "Scene":
        checkpoint = write_folder(folder / "model", shape, max_pixels=CHUNKED_PIXELS)
        model = ServedModel.load(checkpoint, limits=LIMITS)
        planner = Planner(family=model.family, options=PlanOptions(fps=6.0))
        source = Source.of(make(folder, Clip(num_frames=36, **CHUNKED)))
        return cls(checkpoint=checkpoint, source=source, model=model, planner=planner)

    def view(self, media: Any) -> View:
        plan = self.planner.plan(media, source_id="x")
        (view,) = make_views(plan, TASKS, still_at=lambda _: plan)
        assert len(view.window.chunks) > 2
        return view

    def questions(self, view: View) -> list[Question]:
        return self.model.prompts.questions(view, view.requests)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, DEADLINE_S))


def name(number: int, *, owner: str = "host") -> StreamId:
    return StreamId(owner, "1", number)


async def completions(deltas: AsyncIterator[TextDelta], num: int) -> list[Completion]:
    """How every question ended; what was said on the way adds up to it."""
    texts, ends = [""] * num, dict[int, Completion]()
    async for delta in deltas:
        texts[delta.question_index] += delta.text
        if delta.completion is not None:
            ends[delta.question_index] = delta.completion
    assert [end.text for _, end in sorted(ends.items())] == texts
    return [end for _, end in sorted(ends.items())]


@asynccontextmanager
async def opened(ports: Ports, scene: Scene) -> AsyncIterator[View]:
    found = await ports.reader.open(name(0), scene.source)
    try:
        yield scene.view(found.media)
    finally:
        await ports.reader.close(name(0))


async def token_chunks(ports: Ports, view: View) -> list[Any]:
    """All of the view's tokens, as they travel."""
    tokens, begins = [], view
    for left in reversed(range(len(view.window.chunks))):
        read = await ports.reader.read(name(0), begins)
        begins = None
        assert not any(read.is_damaged)
        tokens.append((await ports.encoder.encode(read.frames, left=left)).tokens)
    return tokens


async def fill(
    ports: Ports, scene: Scene, stream: StreamId, view: View, tokens: Sequence[Any]
) -> None:
    await ports.decoder.open(stream, scene.model.prompts.media(view))
    for number, chunk in enumerate(tokens):
        left = len(tokens) - 1 - number
        span = await ports.decoder.prefill(stream, chunk, number=number, left=left)
        assert span.num_tokens == view.window.grid.tokens_per_step * (
            view.window.chunks[number].num_steps
        )


class PortContract:
    """One promise a test."""

    def test_a_video_goes_through_in_order_and_is_asked_as_often_as_wanted(
        self, ports: Ports, scene: Scene
    ):
        async def work() -> None:
            async with opened(ports, scene) as view:
                tokens = await token_chunks(ports, view)
            await fill(ports, scene, name(1), view, tokens)
            asked = scene.questions(view)
            first = await completions(ports.decoder.ask(name(1), asked, closes=False), 2)
            again = await completions(ports.decoder.ask(name(1), asked, closes=False), 2)
            assert first == again
            assert all(said.text for said in first)
            alone = [
                (await completions(ports.decoder.ask(name(1), [each], closes=False), 1))[0]
                for each in asked
            ]
            assert alone == first
            await ports.decoder.close(name(1))

        run(work())

    def test_a_view_can_be_read_again_from_its_first_chunk(self, ports: Ports, scene: Scene):
        async def work() -> None:
            async with opened(ports, scene) as view:
                first, again = [(await ports.reader.read(name(0), view)) for _ in range(2)]
                tokens = [
                    (await ports.encoder.encode(read.frames, left=0)).tokens
                    for read in (first, again)
                ]
                for number, chunk in enumerate(tokens, start=2):
                    await ports.decoder.open(name(number), scene.model.prompts.media(view))
                    await ports.decoder.prefill(name(number), chunk, number=0, left=0)
                    await ports.decoder.close(name(number))

        run(work())

    def test_chunks_are_taken_by_their_numbers_whichever_arrives_first(
        self, ports: Ports, scene: Scene
    ):
        async def work() -> None:
            async with opened(ports, scene) as view:
                tokens = await token_chunks(ports, view)
            await ports.decoder.open(name(1), scene.model.prompts.media(view))
            calls = [
                ports.decoder.prefill(name(1), chunk, number=number, left=0)
                for number, chunk in reversed(list(enumerate(tokens)))
            ]
            await asyncio.gather(*calls)
            asked = scene.questions(view)
            shuffled = await completions(ports.decoder.ask(name(1), asked, closes=True), 2)
            await fill(ports, scene, name(2), view, tokens)
            ordered = await completions(ports.decoder.ask(name(2), asked, closes=True), 2)
            assert shuffled == ordered

        run(work())

    def test_a_chunk_that_is_not_the_next_is_refused_and_the_stream_goes_on(
        self, ports: Ports, scene: Scene
    ):
        async def work() -> None:
            async with opened(ports, scene) as view:
                tokens = await token_chunks(ports, view)
            await ports.decoder.open(name(1), scene.model.prompts.media(view))
            with pytest.raises(StreamError):
                await ports.decoder.prefill(name(1), tokens[2], number=0, left=0)
            for number, chunk in enumerate(tokens, start=1):
                await ports.decoder.prefill(name(1), chunk, number=number, left=0)
            await completions(ports.decoder.ask(name(1), scene.questions(view), closes=True), 2)

        run(work())

    def test_the_last_answer_closes_the_stream_if_it_is_to(self, ports: Ports, scene: Scene):
        async def work() -> None:
            await ports.decoder.open(name(1), [])
            asked = Question(ids=(1, 2, 3), sampling=Sampling(max_new_tokens=3))
            await completions(ports.decoder.ask(name(1), [asked], closes=True), 1)
            await until_closed(ports)
            with pytest.raises(Transient, match="no such stream"):
                await completions(ports.decoder.ask(name(1), [asked], closes=True), 1)

        run(work())

    def test_what_can_never_be_is_refused_by_name_and_costs_nobody_else(
        self, ports: Ports, scene: Scene
    ):
        async def work() -> None:
            await ports.decoder.open(name(1), [])
            good = Question(ids=(1, 2, 3), sampling=Sampling(max_new_tokens=3))
            long = replace(good, sampling=Sampling(max_new_tokens=LIMITS.question_tokens))
            failed, said = await completions(
                ports.decoder.ask(name(1), [long, good], closes=True), 2
            )
            assert (failed.code, said.code) == (FailureCode.PROMPT_TOO_LONG, None)
            async with opened(ports, scene) as view:
                media = scene.model.prompts.media(view) * (LIMITS.max_tokens // 100)
            with pytest.raises(BadInput) as refused:
                await ports.decoder.open(name(2), media)
            assert refused.value.code is FailureCode.TOKEN_BUDGET

        run(work())

    def test_who_yields_is_let_in_after_who_does_not(self, ports: Ports, scene: Scene):
        async def work() -> None:
            async with opened(ports, scene) as view:
                media = scene.model.prompts.media(view)
            num_tokens = sum(medium.num_tokens for medium in media)
            room = LIMITS.max_tokens - LIMITS.question_tokens
            most = list(media) * (room // num_tokens)  # so there is none for a second one
            order: list[StreamId] = []

            async def pass_through(stream: StreamId) -> None:
                await ports.decoder.open(stream, most)
                order.append(stream)
                await ports.decoder.close(stream)

            batch, request = replace(name(2), yields=True), name(3)
            await ports.decoder.open(name(1), most)
            passing = [asyncio.create_task(pass_through(each)) for each in (batch, request)]
            while not {batch, request} <= set(await ports.open_streams()):  # both were heard
                await asyncio.sleep(0.01)
            assert await ports.decoder.is_short()
            await ports.decoder.close(name(1))
            await asyncio.gather(*passing)
            assert order == [request, batch]
            assert not await ports.decoder.is_short()
            await until_closed(ports)

        run(work())

    def test_who_waits_on_a_stream_that_is_closed_hears_it(self, ports: Ports, scene: Scene):
        async def work() -> None:
            await ports.decoder.open(name(1), [])
            endless = Question(ids=(1, 2, 3), sampling=Sampling(max_new_tokens=500))
            asking = ports.decoder.ask(name(1), [endless], closes=False)
            await anext(asking)
            await ports.decoder.close(name(1))
            with pytest.raises(Transient):
                await completions(asking, 1)
            await until_closed(ports)

        run(work())

    def test_release_closes_what_one_owner_left_and_nothing_else(self, ports: Ports, scene: Scene):
        async def work() -> None:
            lost, mine = name(1, owner="lost"), name(1, owner="mine")
            for stream in (lost, mine):
                await ports.decoder.open(stream, [])
                await ports.reader.open(stream, scene.source)
            await ports.decoder.release("lost")
            await ports.reader.release("lost")
            assert await ports.open_streams() == (mine,)
            view = scene.view((await ports.reader.open(name(0), scene.source)).media)
            await ports.reader.read(mine, view)
            with pytest.raises(Transient):
                await ports.reader.read(lost, view)
            for video in (mine, name(0)):
                await ports.reader.close(video)
            await ports.decoder.close(mine)
            await until_closed(ports)

        run(work())

    def test_a_file_that_is_no_video_is_refused_by_the_reader(
        self, ports: Ports, scene: Scene, tmp_path: Path
    ):
        bad = tmp_path / "bad.mp4"
        bad.write_text("this is no video")

        async def work() -> None:
            with pytest.raises(BadInput) as refused:
                await ports.reader.open(name(3), Source.of(bad))
            assert refused.value.code is FailureCode.NOT_A_VIDEO
            await ports.reader.close(name(3))
            await ports.reader.close(name(3))

        run(work())


async def until_closed(ports: Ports) -> None:
    """Closing may be under way."""
    while await ports.open_streams():
        await asyncio.sleep(0.01)
