"""The same flow over three decoders in one run: our engine, vLLM fed by chunks, vLLM fed at once.

Reading and encoding are the same for all. What differs is who computes the language model, and
whether it begins before the clip is read to its end. Words are of random weights: their number is
fixed, so rates compare. vLLM's cache of prefixes is emptied before each clip, or only the first
round would prefill. Needs vLLM (`make test-vllm` makes a venv with it).

The timelines of the last first words stay in the folder, as `chunked.json` and so on. On a CPU the
stages share its cores: "what the stages allow" is what chunks of this size leave to be gained.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console

from actors.profile import DecoderPool, Profile
from actors.vllm.decoder import VLLMDecoder
from actors.vllm.version import require_vllm
from jobs.lab.bench.bench_clips import make_clip
from jobs.lab.bench.measure import Row
from jobs.timing import interleaved
from jobs.trace import Trace
from pipeline.analyse import analyse
from pipeline.config import VIDEO_BYTES, DecodeLimits, Sampling
from pipeline.engine.engine import Engine
from pipeline.engine.ids import StreamId
from pipeline.engine.question import Question
from pipeline.events import Event, Moved, each
from pipeline.families.qwen2_vl.config import load_config
from pipeline.flow import Flow
from pipeline.local import LocalModel
from pipeline.model.tokenizer import Tokenizer
from pipeline.pool import Pool
from pipeline.ports import Decoder
from pipeline.span import Process, Span
from pipeline.stages.encoding import EncodingStage
from pipeline.stages.reading import ReadingStage
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.types import FrameChunk, TokenChunk
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.source import Source

DURATION_S = 60
OPTIONS = PlanOptions(fps=1.0, max_pixels=115_000)  # 252x448, as bench overlap has it
STREAMS, WORDS = (1, 8, 32), 32
NUM_QUESTIONS = 10
FIRST_WORD = Tasks(sampling=Sampling(max_new_tokens=1))
OURS, CHUNKED, WHOLE = "vidray's engine", "vLLM, by chunks", "vLLM, at once"

TIMELINES = {OURS: "ours.json", CHUNKED: "chunked.json", WHOLE: "whole.json"}

Chunks = Flow[FrameChunk, TokenChunk]
Stages = Mapping[str, Sequence[float]]  # seconds of each chunk, by stage


@dataclass(frozen=True, kw_only=True)
class Decoders:
    """All three, on one folder. memory: of each engine's process. forget: vLLM's prefixes."""

    model: LocalModel
    by_name: dict[str, Any]
    memory: dict[str, int]
    forget: Callable[[], Coroutine[Any, Any, None]]
    computed: list[Span] = field(default_factory=list)  # chunks by vLLM since it was emptied


class AtOnce:
    """A decoder that is given nothing before the last chunk is there; what else, it passes on."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._held: dict[StreamId, list[TokenChunk]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    async def prefill(
        self, stream: StreamId, tokens: TokenChunk, *, number: int, left: int
    ) -> Span:
        held = self._held.setdefault(stream, [])
        held.append(tokens)
        if left:
            return Process.here("bench").span("prefill", time.monotonic(), num_tokens=len(held))
        chunks = self._held.pop(stream)
        calls = (
            self._decoder.prefill(stream, chunk, number=place, left=0)
            for place, chunk in enumerate(chunks)
        )
        spans: list[Span] = await asyncio.gather(*calls)
        return spans[-1]


def rows(folder: Path, checkpoint: Path, *, rounds: int) -> Iterator[Row]:
    """Yield the table's rows: first word, words/s, ten questions, memory."""
    require_vllm()
    progress = Console(stderr=True, highlight=False)  # the table comes after ten minutes
    clip = make_clip(folder, duration_s=DURATION_S, width=1280, height=720)
    with asyncio.Runner() as runner, _decoders(checkpoint) as decoders:
        flows = {name: _flow(decoders.model, decoder) for name, decoder in decoders.by_name.items()}
        traces: dict[str, Trace] = {}
        stages: dict[str, Stages] = {}

        def watch(name: str, tasks: Tasks) -> None:
            runner.run(decoders.forget())
            decoders.computed.clear()
            traces[name], started_s = Trace(), time.monotonic()
            heard = runner.run(_watch(flows[name], clip, tasks, traces[name]))
            progress.print(f"{name}: a clip in {time.monotonic() - started_s:.1f} s", style="dim")
            stages[name] = {**heard, "prefill": [span.duration_s for span in decoders.computed]}

        first = interleaved(
            {name: partial(watch, name, FIRST_WORD) for name in flows}, rounds=rounds
        )
        for name, trace in traces.items():
            trace.write(folder / TIMELINES[name])
        yield _row(f"first word of {DURATION_S} s", first, CHUNKED, WHOLE, target=1.0)
        yield _share_of_limit(first[CHUNKED], stages[WHOLE])
        yield _row(f"first word of {DURATION_S} s", first, OURS, CHUNKED, target=0.0)
        for num_streams in STREAMS:
            seconds = interleaved(
                {
                    name: partial(_words, runner, decoder, num_streams)
                    for name, decoder in decoders.by_name.items()
                    if name != WHOLE
                },
                rounds=rounds,
            )
            words = num_streams * WORDS
            yield Row(
                what=f"words/s, {num_streams} at once",
                vidray=f"{OURS} {words / seconds[OURS]:,.0f}",
                peer=f"{CHUNKED} {words / seconds[CHUNKED]:,.0f}",
                ratio=seconds[CHUNKED] / seconds[OURS],
                target=0.0,
            )
        asks = tuple(Ask(question=f"What is number {number}?") for number in range(NUM_QUESTIONS))
        for name in (OURS, CHUNKED):
            one, ten = (
                Tasks(caption=None, asks=asks[:num], sampling=Sampling(max_new_tokens=1))
                for num in (1, NUM_QUESTIONS)
            )
            seconds = interleaved(
                {
                    "one": partial(watch, name, one),
                    "ten": partial(watch, name, ten),
                },
                rounds=rounds,
                warm_ups=0,  # all of it has run
            )
            yield Row(
                what=f"{NUM_QUESTIONS} questions against one: {name}",
                vidray=f"{seconds['ten']:.2f} s",
                peer=f"{seconds['one']:.2f} s",
                ratio=seconds["ten"] / seconds["one"],
                target=1.5,
                at_most=True,
            )
        yield Row(
            what="memory of the language model's process",
            vidray=f"{OURS} {decoders.memory[OURS] / 2**20:,.0f} MiB",
            peer=f"vLLM {decoders.memory[CHUNKED] / 2**20:,.0f} MiB",
            ratio=decoders.memory[CHUNKED] / decoders.memory[OURS],
            target=0.0,
        )


@contextmanager
def _decoders(checkpoint: Path) -> Iterator[Decoders]:
    from actors.vllm.start import start_engine  # noqa: PLC0415 - absent where ours serves

    profile = Profile(
        device="cuda" if torch.cuda.is_available() else "cpu",
        dtype="bfloat16" if torch.cuda.is_available() else "float32",
        decoders=DecoderPool(engine="vllm", kv_tokens=65_536, num_threads=torch.get_num_threads()),
    )
    config = load_config(checkpoint)
    with ExitStack() as stack:
        before = psutil.Process().memory_info().rss
        model = LocalModel.load(checkpoint, device=profile.device)
        ours = psutil.Process().memory_info().rss - before
        engine = start_engine(checkpoint, profile, config=config)
        stack.callback(engine.stop)
        computed = list[Span]()
        vllm = VLLMDecoder(
            engine,
            config=config,
            tokenizer=Tokenizer.load(checkpoint),
            eos_ids=model.served.eos_ids,
            limits=profile.decoders.limits,
            observe=lambda span: computed.append(span) if span.stage == "prefill" else None,
        )
        theirs = sum(psutil.Process(each).memory_info().rss for each in engine.process_ids())
        yield Decoders(
            model=model,
            by_name={OURS: Engine(model.rank), CHUNKED: vllm, WHOLE: AtOnce(vllm)},
            memory={OURS: ours, CHUNKED: theirs},
            forget=engine.forget,
            computed=computed,
        )


def _share_of_limit(seconds: float, stages: Stages) -> Row:
    """No flow is faster than each chunk through each stage, behind the one before it there.

    Nor than all work over all cores, of which a stage but the reader has as many as its threads.
    """
    ended = dict.fromkeys(stages, 0.0)
    for chunk in zip(*stages.values(), strict=True):
        at_s = 0.0
        for stage, duration_s in zip(stages, chunk, strict=True):
            at_s = ended[stage] = max(at_s, ended[stage]) + duration_s
    total = {stage: sum(durations) for stage, durations in stages.items()}
    work_s = total["read"] + torch.get_num_threads() * (total["encode"] + total["prefill"])
    limit_s = max(*ended.values(), work_s / (os.cpu_count() or 1))
    each_s = ", ".join(f"{stage} {total_s:.1f} s" for stage, total_s in total.items())
    return Row(
        what=f"first word of {DURATION_S} s against what the stages allow",
        vidray=f"{CHUNKED} {seconds:.2f} s",
        peer=f"{limit_s:.2f} s ({each_s})",
        ratio=seconds / limit_s,
        target=1.1,
        at_most=True,
    )


def _flow(model: LocalModel, decoder: Decoder[TokenChunk]) -> Chunks:
    encoding = EncodingStage(model.encoder, thread=ThreadPoolExecutor(1, "encoder"))
    return Flow(
        model.served,
        readers=Pool([ReadingStage(DecodeLimits())]),
        encoders=Pool([encoding]),
        decoders=Pool([decoder]),
        planner=Planner(family=model.served.family, options=OPTIONS),
        video_bytes=VIDEO_BYTES,
    )


def _words(runner: asyncio.Runner, decoder: Any, num_streams: int) -> None:
    runner.run(_write(decoder, num_streams))


async def _watch(flow: Chunks, clip: Path, tasks: Tasks, trace: Trace) -> dict[str, list[float]]:
    """Seconds of each chunk in reading and in encoding."""
    stages: dict[str, list[float]] = {"read": [], "encode": []}

    def hear(event: Event) -> None:
        if isinstance(event, Moved) and event.stage in stages:
            stages[event.stage].append(event.span.duration_s)

    listener = each(trace.listener("clip"), hear)
    record = await analyse(Source.of(clip), tasks, flow, video_id="clip", listener=listener)
    if record.code is not None:
        raise RuntimeError(f"{record.code}: {record.detail}")
    return stages


_numbers = itertools.count()


async def _write(decoder: Any, num_streams: int) -> None:
    """So many streams of text, each asked at once for the same number of words."""

    async def one() -> None:
        name = StreamId("bench", "write", next(_numbers))
        await decoder.open(name, [])
        sampling = Sampling(max_new_tokens=WORDS)
        asked = Question(ids=tuple(range(1, 65)), sampling=sampling)
        async for _ in decoder.ask(name, [asked], closes=True):
            pass

    await asyncio.gather(*(one() for _ in range(num_streams)))


def _row(what: str, seconds: dict[str, float], one: str, other: str, *, target: float) -> Row:
    return Row(
        what=what,
        vidray=f"{one} {seconds[one]:.2f} s",
        peer=f"{other} {seconds[other]:.2f} s",
        ratio=seconds[other] / seconds[one],
        target=target,
    )
