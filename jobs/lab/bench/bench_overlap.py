"""Time to the first word of a minute of video: flowing, stage after stage, and by transformers.

A 1280x720 clip, a frame a second at about 252x448 pixels: decoding, encoding and prefill then take
seconds each on two cores. Every candidate answers with one token, and is timed to its very end.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

import torch

from actors.fleet import Fleet
from actors.launch import start_fleet
from actors.profile import Profile
from jobs.lab.bench import in_a_row
from jobs.lab.bench.bench_clips import make_clip
from jobs.lab.bench.measure import Row
from jobs.lab.bench.peers import pyav_frames, transformers_model, transformers_processor
from jobs.timing import interleaved
from pipeline.analyse import analyse
from pipeline.config import DecodeLimits, Sampling
from pipeline.engine.commands import CloseStream, OpenStream
from pipeline.engine.ids import StreamId
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.local import LocalFlow, LocalModel
from pipeline.tasks.records import Record
from pipeline.tasks.requests import View, make_views
from pipeline.tasks.tasks import CAPTION_VIDEO, Tasks
from pipeline.types import SamplingPlan
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.reader import open_media
from pipeline.video.source import Source

DURATION_S = 60
MAX_PIXELS = 115_000  # 252x448, with room for both sides' rounding
OPTIONS = PlanOptions(fps=1.0, max_pixels=MAX_PIXELS)
PLANNER = Planner(family=QWEN2_VL, options=OPTIONS)
TASKS = Tasks(sampling=Sampling(max_new_tokens=1))
PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    f"<|vision_start|><|video_pad|><|vision_end|>{CAPTION_VIDEO}<|im_end|>\n<|im_start|>assistant\n"
)
NAMES = {
    "fleet": "Ray",
    "in process": "in process",
    "in a row": "stages in a row",
    "in a row, alone": "stages in a row, one thread",
    "transformers": "transformers",
}

Stages = dict[str, float]  # seconds by stage


def rows(
    folder: Path, checkpoint: Path, *, rounds: int, duration_s: int = DURATION_S
) -> Iterator[Row]:
    """Yield the table's rows. What is on one thread says so."""
    clip = make_clip(folder, duration_s=duration_s, width=1280, height=720)
    model, theirs = LocalModel.load(checkpoint), _Transformers(checkpoint, clip)
    alone: list[Stages] = []  # each stage on one thread
    with (
        start_fleet(checkpoint, options=OPTIONS, profile=Profile()) as fleet,
        closing(LocalFlow(model, options=OPTIONS)) as flow,
        asyncio.Runner() as runner,
    ):
        seconds = interleaved(
            {
                "fleet": lambda: runner.run(_flow_through(fleet, clip)),
                "in process": lambda: runner.run(_flow_in_process(flow, clip)),
                "in a row": lambda: _in_a_row(model, clip),
                "in a row, alone": lambda: alone.append(_in_a_row(model, clip, num_threads=1)),
                "transformers": theirs.first_token,
            },
            rounds=rounds,
        )
    what = f"first word of {duration_s} s, {theirs.num_tokens:,} video tokens"
    for ours, peer in (
        ("fleet", "in a row, alone"),
        ("fleet", "in a row"),
        ("fleet", "transformers"),
        ("in process", "in a row"),
        ("in process", "transformers"),
    ):
        yield Row(
            what=f"{what}: {NAMES[ours]}",
            vidray=f"{seconds[ours]:.1f} s",
            peer=f"{NAMES[peer]} {seconds[peer]:.1f} s",
            ratio=seconds[peer] / seconds[ours],
            target=1.0,
        )
    yield _share_of_limit(what, seconds["fleet"], alone)


def _share_of_limit(what: str, seconds: float, alone: list[Stages]) -> Row:
    """No overlap is faster than the slowest stage, nor than all work over all cores."""
    stages = {name: median(times[name] for times in alone) for name in alone[0]}
    limit = max(*stages.values(), sum(stages.values()) / torch.get_num_threads())
    each = ", ".join(f"{name} {stage_s:.1f} s" for name, stage_s in stages.items())
    return Row(
        what=f"{what}: against what the stages allow",
        vidray=f"{seconds:.1f} s",
        peer=f"{limit:.1f} s ({each})",
        ratio=seconds / limit,
        target=1.1,
        at_most=True,
    )


async def _flow_through(fleet: Fleet, clip: Path) -> None:
    _require_good(await fleet.analyse(Source.of(clip), TASKS, video_id="clip"))


async def _flow_in_process(flow: LocalFlow, clip: Path) -> None:
    _require_good(await analyse(Source.of(clip), TASKS, flow, video_id="clip"))


def _require_good(record: Record) -> None:
    if record.code is not None:
        raise RuntimeError(f"{record.code}: {record.detail}")


def _in_a_row(model: LocalModel, clip: Path, *, num_threads: int | None = None) -> Stages:
    """All of each stage before the next one starts: what vidray would be if it did not flow."""
    num_threads = num_threads or torch.get_num_threads()
    stages: Stages = {}
    with _threads(num_threads):
        limits = DecodeLimits(threads=num_threads)
        with _timing(stages, "read"), open_media(Source.of(clip), limits) as media:
            view = _view(PLANNER.plan(media.info, source_id="bench"))
            frames = list(media.read(view.plan, view.window))
        with _timing(stages, "encode"):
            tokens = [model.encoder.encode([chunk])[0] for chunk in frames]
        prompts, stream = model.served.prompts, StreamId("bench", "in a row", 0)
        model.rank.control(OpenStream(stream, tuple(prompts.media(view))))
        with _timing(stages, "prefill"):
            in_a_row.prefill(model.rank, stream, tokens)
        with _timing(stages, "generate"):
            questions = prompts.questions(view, view.requests)
            in_a_row.write(model.rank, [(stream, question) for question in questions])
        model.rank.control(CloseStream(stream))
    return stages


def _view(plan: SamplingPlan) -> View:
    (view,) = make_views(plan, TASKS, still_at=lambda _: plan)
    return view


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _timing(stages: Stages, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    stages[name] = time.perf_counter() - start


class _Transformers:
    """The clip's planned frames by PyAV, its processor, and `generate` of one token."""

    def __init__(self, checkpoint: Path, clip: Path) -> None:
        with open_media(Source.of(clip)) as media:
            window = _view(PLANNER.plan(media.info, source_id="bench")).window
        self.num_tokens = window.grid.num_tokens
        self._clip, self._times_s = clip, window.times_s
        self._model = transformers_model(checkpoint)
        self._processor = transformers_processor(checkpoint, num_pixels=MAX_PIXELS)

    def first_token(self) -> None:
        frames = pyav_frames(self._clip, self._times_s)
        inputs = self._processor(text=[PROMPT], videos=[frames], return_tensors="pt")
        num_tokens = int(inputs["video_grid_thw"].prod()) // 4
        if num_tokens != self.num_tokens:
            raise RuntimeError(f"{num_tokens} tokens, not {self.num_tokens}: not comparable")
        with torch.inference_mode():
            self._model.generate(**inputs, do_sample=False, max_new_tokens=1)
