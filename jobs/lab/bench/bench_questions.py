"""Ten questions on one clip against one: the video is prefilled once, whatever is asked."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from jobs.lab.bench.measure import Row, milliseconds
from jobs.timing import interleaved
from pipeline.config import Sampling
from pipeline.engine.engine import Engine
from pipeline.engine.ids import StreamId
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Question
from pipeline.families.qwen2_vl.chat import Medium
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.local import LocalModel
from pipeline.types import ChunkSpan, FrameChunk, Grid, Window

GRID = Grid(8, 18, 32, GEOMETRY)  # 16 frames at 252x448, as of 8 s at 2 fps
STEPS_PER_CHUNK = 2
NUM_QUESTIONS = 10
STREAM = StreamId("bench", "", 0)


def rows(checkpoint: Path, *, rounds: int) -> Iterator[Row]:
    """Yield one row. Each answer is one token: what the words cost is another topic."""
    model = LocalModel.load(checkpoint)
    ids = model.served.prompts.layout.question("Which way does the red car turn at the end?")
    question = Question(ids=ids, sampling=Sampling(max_new_tokens=1))
    with ThreadPoolExecutor(1) as thread:
        run = partial(_run, model, thread)
        seconds = interleaved(
            {"one": lambda: run([question]), "ten": lambda: run([question] * NUM_QUESTIONS)},
            rounds=rounds,
        )
    yield Row(
        what=f"{NUM_QUESTIONS} questions on one clip of {GRID.num_tokens} tokens",
        vidray=milliseconds(seconds["ten"]),
        peer=f"one question {milliseconds(seconds['one'])}",
        ratio=seconds["ten"] / seconds["one"],
        target=1.5,
        at_most=True,
    )


def _run(model: LocalModel, thread: Executor, questions: list[Question]) -> None:
    asyncio.run(_watch_and_ask(model, thread, questions))


async def _watch_and_ask(model: LocalModel, thread: Executor, questions: list[Question]) -> None:
    (before,) = model.served.prompts.layout.before_media([Medium.VIDEO])
    window = _window()
    engine = Engine(model.rank, thread=thread)
    await engine.open(STREAM, [PromptWindow(ids_before=before, plan_hash="", window=window)])
    in_thread = partial(asyncio.get_running_loop().run_in_executor, thread)
    for span in window.chunks:
        (tokens,) = await in_thread(model.encoder.encode, [_frames(span)])
        await engine.prefill(STREAM, tokens, number=span.index)
    async for _ in engine.ask(STREAM, questions, closes=True):
        pass
    engine.stop()


def _window() -> Window:
    num_frames = GRID.num_frames
    starts = range(0, GRID.t, STEPS_PER_CHUNK)
    return Window(
        index=0,
        start_s=0.0,
        end_s=num_frames / 2,
        frame_pts=tuple(range(num_frames)),
        times_s=tuple(index / 2 for index in range(num_frames)),
        grid=GRID,
        chunks=tuple(
            ChunkSpan(index, start, start + STEPS_PER_CHUNK) for index, start in enumerate(starts)
        ),
    )


def _frames(span: ChunkSpan) -> FrameChunk:
    num_frames, size = span.num_steps * GEOMETRY.temporal, GRID.size
    shape = (num_frames, size.height, size.width, 3)
    return FrameChunk(
        plan_hash="",
        window_index=0,
        index=span.index,
        geometry=GEOMETRY,
        frames=torch.randint(0, 256, shape, dtype=torch.uint8),
        is_damaged=(False,) * num_frames,
    )
