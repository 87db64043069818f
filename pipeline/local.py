"""The flow in this process: one thread reads ahead, one computes.

Decoding happens in child processes, so it goes on while the model works; the reader holds a few
chunks and then waits. Encoding, prefill and generation take turns: they want the same cores.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipeline.ahead import read_ahead
from pipeline.config import DecodeLimits, EngineLimits, Sampling
from pipeline.engine.admission import Engine
from pipeline.engine.answer import Question
from pipeline.engine.stream import Piece, Stream
from pipeline.families.qwen2_vl.chat import ChatLayout
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.flow import EncodedChunk, Listener, Moved
from pipeline.model.digest import digest, display_name
from pipeline.model.encoder import VisionEncoder
from pipeline.model.packed import pack
from pipeline.model.quantize import quantize
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.weights import load_model
from pipeline.prompts import Prompts
from pipeline.stint import Place, Stint
from pipeline.tasks.requests import Request, View
from pipeline.types import FrameChunk, MediaInfo, SamplingPlan, TokenChunk
from pipeline.video.family import Family
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.reader import Media, Reader, open_media
from pipeline.video.source import Source, identity

CHUNKS_AHEAD = 3
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A checkpoint in this process, and what it says about its own use."""

    name: str
    digest: str
    sampling: Sampling
    family: Family
    encoder: VisionEncoder
    engine: Engine
    prompts: Prompts

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        limits: EngineLimits | None = None,
        device: str = "cpu",
        int8: bool = False,
    ) -> "LocalModel":
        """The model in this folder; CheckpointError if it cannot be trusted.

        int8: the opt-in mode of quantize.py, for the language model; the name says so in every row.
        """
        limits = limits or EngineLimits()
        generation = load_generation(folder)
        family = load_family(folder)
        tokenizer = Tokenizer.load(folder)
        model = load_model(folder, device=device)
        pack(model.vision)
        quantize(model.language) if int8 else pack(model.language)
        return cls(
            name=display_name(folder, int8=int8),
            digest=digest(folder),
            sampling=generation.sampling,
            family=family,
            encoder=VisionEncoder(model.vision),
            engine=Engine(model.language, tokenizer, eos_ids=generation.eos_ids, limits=limits),
            prompts=Prompts(ChatLayout(tokenizer), limits),
        )


class LocalFlow:
    """Runs one video at a time through one model. Close it when done."""

    def __init__(
        self,
        model: LocalModel,
        *,
        options: PlanOptions,
        reader: Reader = "pyav",
        limits: DecodeLimits | None = None,
    ) -> None:
        self.model = model.name
        self.model_digest = model.digest
        self._model = model
        self._planner = Planner(family=model.family, options=options)
        self._reader: Reader = reader
        self._limits = limits or DecodeLimits()
        self._reader_place, self._model_place = Place.here("reader"), Place.here("model")
        self._reading = ThreadPoolExecutor(1, "read")
        self.computing = ThreadPoolExecutor(1, "compute")

    def close(self) -> None:
        """End the threads; what they are in the middle of is finished first."""
        self._reading.shutdown(cancel_futures=True)
        self.computing.shutdown(cancel_futures=True)

    @asynccontextmanager
    async def open(self, source: Source) -> AsyncIterator["LocalVideo"]:
        context = open_media(source, self._limits)
        media = await _on(self._reading, context.__enter__)
        try:
            etag = await _on(self._reading, identity, source)
            size_bytes = source.path.stat().st_size
            planner = self._planner.of(source)
            yield LocalVideo(media, self, planner, etag=etag, size_bytes=size_bytes)
        finally:
            await _on(self._reading, context.__exit__, None, None, None)

    @asynccontextmanager
    async def stream(self, view: View | None) -> AsyncIterator["LocalStream"]:
        prompts = self._model.prompts
        with self._model.engine.open(prompts.media(view)) as stream:
            yield LocalStream(stream, self, partial(prompts.questions, view))

    def max_parts(self, max_new_tokens: int) -> int:
        return self._model.prompts.max_parts(max_new_tokens)

    def read(
        self, media: Media, view: View, *, listener: Listener
    ) -> AsyncGenerator[FrameChunk, None]:
        """The view's frames, a few chunks ahead."""
        frames = media.read(view.plan, view.window, reader=self._reader)
        told = _told(frames, self._reader_place, listener)
        return read_ahead(told, depth=CHUNKS_AHEAD, thread=self._reading)

    async def encode(self, chunk: FrameChunk) -> tuple[TokenChunk, Stint]:
        return await _on(self.computing, self._encode, chunk)

    async def prefill(self, stream: Stream, chunk: TokenChunk) -> Stint:
        return await _on(self.computing, self._prefill, stream, chunk)

    def _encode(self, chunk: FrameChunk) -> tuple[TokenChunk, Stint]:
        started_s = time.monotonic()
        (encoded,) = self._model.encoder.encode([chunk])
        tokens = encoded.tokens
        stint = self._model_place.stint(
            "encode", started_s, num_tokens=tokens.shape[0], num_bytes=tokens.nbytes
        )
        return encoded, stint

    def _prefill(self, stream: Stream, chunk: TokenChunk) -> Stint:
        started_s = time.monotonic()
        stream.prefill(chunk)
        return self._model_place.stint(
            "prefill",
            started_s,
            num_tokens=chunk.tokens.shape[0],
            kv_share=self._model.engine.kv_share,
        )


class LocalVideo:
    """An open video whose frames this process reads and encodes."""

    def __init__(
        self, media: Media, flow: LocalFlow, planner: Planner, *, etag: str, size_bytes: int
    ) -> None:
        self.media: MediaInfo = media.info
        self.plan = planner.plan(media.info, source_id=etag)
        self.etag = etag
        self.size_bytes = size_bytes
        self._open_media = media
        self._flow = flow
        self._planner = planner

    def still_at(self, time_s: float) -> SamplingPlan:
        return self._planner.plan_still(self.media, time_s, source_id=self.etag)

    async def token_chunks(
        self, view: View, *, listener: Listener
    ) -> AsyncGenerator[EncodedChunk, None]:
        async with aclosing(self._flow.read(self._open_media, view, listener=listener)) as chunks:
            started = time.monotonic()
            async for chunk in chunks:
                arrived = time.monotonic()
                tokens, stint = await self._flow.encode(chunk)
                listener(_moved(chunk, stint))
                yield EncodedChunk.of(
                    chunk.index,
                    tokens,
                    chunk.is_damaged,
                    read_s=arrived - started,
                    encode_s=stint.duration_s,
                )
                started = time.monotonic()


class LocalStream:
    """An open stream of this process's engine."""

    def __init__(
        self,
        stream: Stream,
        flow: LocalFlow,
        questions: Callable[[Sequence[Request]], list[Question]],
    ) -> None:
        self._stream = stream
        self._flow = flow
        self._questions = questions

    async def prefill(self, chunk: EncodedChunk) -> Stint:
        return await self._flow.prefill(self._stream, chunk.tokens)

    async def write(self, requests: Sequence[Request]) -> AsyncGenerator[Piece, None]:
        pieces = self._stream.write(self._questions(requests))
        async with aclosing(read_ahead(pieces, depth=1, thread=self._flow.computing)) as ready:
            async for piece in ready:
                yield piece


def _told(
    frames: Iterator[FrameChunk], place: Place, listener: Listener
) -> Generator[FrameChunk, None, None]:
    """The same chunks; the listener hears of each as it is read."""
    started_s = time.monotonic()
    for chunk in frames:
        num_frames, num_bytes = len(chunk.is_damaged), chunk.frames.nbytes
        stint = place.stint("read", started_s, num_frames=num_frames, num_bytes=num_bytes)
        listener(_moved(chunk, stint))
        yield chunk
        started_s = time.monotonic()


def _moved(chunk: FrameChunk, stint: Stint) -> Moved:
    return Moved(chunk.num_steps, stint, chunk.window_index, chunk.index)


async def _on(thread: Executor, call: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, call, *arguments)
