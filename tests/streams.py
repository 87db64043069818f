"""Small streams for engines and replicas: a window of six steps, its chunks, questions on it."""

from torch import Tensor

from pipeline.config import EngineLimits, Sampling
from pipeline.engine.admission import Engine
from pipeline.engine.answer import Question
from pipeline.engine.layout import PromptWindow
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.model.encoder import VisionEncoder
from pipeline.types import ChunkSpan, FrameChunk, Grid, TokenChunk, Window
from tests.tiny_model import Tiny, random_frames, random_ids
from tests.tiny_tokenizer import tiny_tokenizer

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


def new_engine(
    model: Qwen2VL, *, limits: EngineLimits = LIMITS, eos: tuple[int, ...] = (EOS,)
) -> Engine:
    return Engine(model.language, tiny_tokenizer(), eos_ids=eos, limits=limits)
