"""Small streams for engines and replicas: a window of six steps, its chunks, questions on it."""

import asyncio
from collections.abc import Coroutine, Sequence
from itertools import count
from typing import Any

from torch import Tensor

from pipeline.config import EngineLimits, Sampling
from pipeline.engine.engine import Engine
from pipeline.engine.ids import StreamId
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Completion, Question, TextDelta
from pipeline.engine.rank import Rank
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.model.encoder import VisionEncoder
from pipeline.types import ChunkSpan, FrameChunk, Grid, TokenChunk, Window
from tests.tiny_model import Tiny, random_frames, random_ids
from tests.tiny_tokenizer import tiny_tokenizer

DEADLINE_S = 60
EOS = Tiny().config.vocab_size - 6
ROWS, COLUMNS = 2, 3  # merged tokens of a temporal patch
STEPS = 6  # more than the rows and columns: the paper's and transformers 5's positions differ
BEFORE = tuple(random_ids(5, seed=1))
LIMITS = EngineLimits(max_tokens=4_096, question_tokens=1_024)


def window(chunk_sizes: tuple[int, ...], *, index: int = 0) -> Window:
    """A window of `STEPS` temporal patches in chunks of these sizes."""
    stops = [sum(chunk_sizes[: place + 1]) for place in range(len(chunk_sizes))]
    spans = [
        ChunkSpan(place, stop - size, stop)
        for place, (stop, size) in enumerate(zip(stops, chunk_sizes, strict=True))
    ]
    return Window(
        index=index,
        start_s=0.0,
        end_s=6.0,
        frame_pts=tuple(range(2 * STEPS)),
        times_s=tuple(index / 2 for index in range(2 * STEPS)),
        grid=Grid(STEPS, 2 * ROWS, 2 * COLUMNS, GEOMETRY),
        chunks=tuple(spans),
    )


def prompt_window(sizes: tuple[int, ...] = (2, 1, 3), *, plan_hash: str = "p") -> PromptWindow:
    return PromptWindow(ids_before=BEFORE, plan_hash=plan_hash, window=window(sizes))


def frame_chunks(shown: PromptWindow, frames: Tensor) -> list[FrameChunk]:
    return [
        FrameChunk(
            plan_hash=shown.plan_hash,
            window_index=shown.window.index,
            index=span.index,
            geometry=GEOMETRY,
            frames=frames[2 * span.start : 2 * span.stop],
            is_damaged=(False,) * (2 * span.num_steps),
        )
        for span in shown.window.chunks
    ]


def token_chunks(model: Qwen2VL, shown: PromptWindow, *, seed: int = 0) -> list[TokenChunk]:
    frames = random_frames(2 * STEPS, ROWS, COLUMNS, seed=seed)
    return VisionEncoder(model.vision).encode(frame_chunks(shown, frames))


def question(num_ids: int = 7, *, seed: int = 2, **knobs: object) -> Question:
    knobs = {"max_new_tokens": 64} | knobs
    return Question(ids=tuple(random_ids(num_ids, seed=seed)), sampling=Sampling(**knobs))


def new_rank(
    model: Qwen2VL, *, limits: EngineLimits = LIMITS, eos: tuple[int, ...] = (EOS,)
) -> Rank:
    return Rank(model.language, tiny_tokenizer(), eos_ids=eos, limits=limits)


def stream_id(number: int, *, owner: str = "test", yields: bool = False) -> StreamId:
    return StreamId(owner, "", number, yields)


class Asking:
    """An engine for tests that wait: streams are opened, filled and asked in turn."""

    def __init__(
        self, model: Qwen2VL, *, limits: EngineLimits = LIMITS, eos: tuple[int, ...] = (EOS,)
    ) -> None:
        self.rank = new_rank(model, limits=limits, eos=eos)
        self.engine = Engine(self.rank)
        self._numbers = count()

    @property
    def num_free_tokens(self) -> int:
        return self.rank.admission.num_free_tokens

    def open(self, media: Sequence[PromptWindow]) -> "AskedStream":
        stream = AskedStream(self.engine, stream_id(next(self._numbers)))
        wait(self.engine.open(stream.name, media))
        return stream

    def filled(self, model: Qwen2VL, shown: PromptWindow, *, seed: int = 0) -> "AskedStream":
        stream = self.open([shown])
        for chunk in token_chunks(model, shown, seed=seed):
            stream.prefill(chunk)
        return stream


class AskedStream:
    """One stream of it."""

    def __init__(self, engine: Engine, name: StreamId) -> None:
        self.name = name
        self._engine = engine
        self._num_chunks = 0

    def prefill(self, chunk: TokenChunk) -> None:
        self._num_chunks += 1
        wait(self._engine.prefill(self.name, chunk, number=self._num_chunks - 1))

    def deltas(self, questions: Sequence[Question]) -> list[TextDelta]:
        async def run() -> list[TextDelta]:
            return [delta async for delta in self._engine.ask(self.name, questions)]

        return wait(run())

    def ask_many(self, questions: Sequence[Question]) -> list[Completion]:
        said = {each.question_index: each.completion for each in self.deltas(questions)}
        return [said[index] for index in range(len(questions))]

    def ask(self, question: Question) -> Completion:
        (said,) = self.ask_many([question])
        return said

    def close(self) -> None:
        wait(self._engine.close(self.name))


def wait(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, DEADLINE_S))
