"""The flow over actors: references move through here, pixels and tokens never do."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from actors.calls import Handle, Result, answer_of, recover
from actors.credit import Credit
from actors.pool import Pool, Pools
from actors.profile import Profile
from actors.reader import Opened, ReadNote
from pipeline.engine.stream import Piece
from pipeline.errors import Transient
from pipeline.families.qwen2_vl.chat import ChatLayout
from pipeline.families.qwen2_vl.config import load_config
from pipeline.flow import EncodedChunk, Listener, Moved
from pipeline.model.digest import digest, display_name
from pipeline.model.tokenizer import Tokenizer
from pipeline.prompts import Prompts
from pipeline.stint import Stint
from pipeline.tasks.requests import Request, View
from pipeline.types import ChunkSpan, MediaInfo, SamplingPlan, Window
from pipeline.video.plan import Planner
from pipeline.video.source import Source


class RayFlow:
    """Where one stream host's videos are read, encoded and answered.

    Whatever is lost on the way (an actor, an object, an answer in time) is Transient: the video can
    be run again from its start, and comes out the same.
    """

    def __init__(
        self,
        pools: Pools,
        checkpoint: Path,
        *,
        owner: str,
        planner: Planner,
        profile: Profile,
    ) -> None:
        layout = ChatLayout(Tokenizer.load(checkpoint))
        self.model = display_name(checkpoint, int8=profile.decoders.int8)
        self.model_digest = digest(checkpoint)
        self.profile = profile
        self.prompts = Prompts(layout, profile.decoders.limits)
        self.encoders = Pool(pools.encoders)
        self._readers = Pool(pools.readers)
        self._decoders = Pool(pools.decoders)
        self._planner = planner
        element: torch.dtype = getattr(torch, profile.dtype)
        self._token_bytes = load_config(checkpoint).hidden_size * element.itemsize
        self._owner = owner
        self._life = uuid4().hex[:8]  # of what a host before held nothing has a name of this one's
        self._numbers = itertools.count()

    @asynccontextmanager
    async def open(self, source: Source) -> AsyncIterator["RayVideo"]:
        key = self._new_name()
        with self._readers.least_loaded(load=1) as reader:
            try:
                opened: Opened = await self.answer_of(reader, reader.open.remote(key, source))
                yield RayVideo(self, reader, key, opened, self._planner.of(source))
            finally:
                reader.close.remote(key)

    @asynccontextmanager
    async def stream(self, view: View | None) -> AsyncIterator["RayStream"]:
        key, media = self._new_name(), self.prompts.media(view)
        num_tokens = sum(medium.num_tokens for medium in media)
        load = num_tokens + self.profile.decoders.question_tokens
        with self._decoders.least_loaded(load=load) as decoder:
            stream = RayStream(self, decoder, key, view)
            try:
                await self.answer_of(decoder, decoder.open.remote(key, media))
                yield stream
            finally:
                if not stream.is_answered:
                    decoder.close.remote(key)

    def max_parts(self, max_new_tokens: int) -> int:
        return self.prompts.max_parts(max_new_tokens)

    def num_bytes(self, window: Window, span: ChunkSpan) -> int:
        """What a chunk of this window holds on its way: its frames, then also its tokens."""
        num_frames = span.num_steps * window.grid.geometry.temporal
        frames = num_frames * window.grid.size.num_pixels * 3
        return frames + span.num_steps * window.grid.tokens_per_step * self._token_bytes

    async def answer_of(self, actor: Handle, call: Awaitable[Result]) -> Result:
        """The call's result; Transient if the actor is lost or silent."""
        return await answer_of(actor, call, stall_s=self.profile.stall_s)

    async def release(self, owner: str) -> None:
        """Free what a stream host of this name left open; whoever was restarted holds nothing."""
        actors = (*self._readers.actors, *self._decoders.actors)
        calls = (self.answer_of(actor, actor.release.remote(owner)) for actor in actors)
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, Transient):
                raise result

    async def ready(self) -> None:
        """Wait until every actor answers; one that was lost loads its model again first."""
        actors = (*self._readers.actors, *self.encoders.actors, *self._decoders.actors)
        patience_s = self.profile.stall_s
        await asyncio.gather(*(recover(actor, patience_s=patience_s) for actor in actors))

    def _new_name(self) -> str:
        return f"{self._owner}/{self._life}-{next(self._numbers)}"


@dataclass(frozen=True, slots=True)
class _Encoding:
    """A chunk whose frames are read and whose tokens are on their way."""

    note: ReadNote
    tokens: Any  # references: of the TokenParcel,
    stint: Any  # and of what it took


class RayVideo:
    """A video that is open in a reader."""

    def __init__(
        self, flow: RayFlow, reader: Handle, key: str, opened: Opened, planner: Planner
    ) -> None:
        self.media: MediaInfo = opened.media
        self.plan = planner.plan(opened.media, source_id=opened.etag)
        self.etag = opened.etag
        self.size_bytes = opened.size_bytes
        self._flow = flow
        self._reader = reader
        self._key = key
        self._planner = planner

    def still_at(self, time_s: float) -> SamplingPlan:
        return self._planner.plan_still(self.media, time_s, source_id=self.etag)

    async def token_chunks(
        self, view: View, *, listener: Listener
    ) -> AsyncGenerator[EncodedChunk, None]:
        """The view's chunks in order; reader and encoder work ahead as far as the credit goes."""
        credit = Credit(self._flow.profile.video_bytes)
        encoding: asyncio.Queue[_Encoding | Exception] = asyncio.Queue()
        # Always the same encoder for one video, so that its chunks are encoded in order.
        with self._flow.encoders.least_loaded(load=view.window.grid.num_tokens) as encoder:
            ahead = self._read_ahead(view, encoder, credit, encoding, listener)
            pump = asyncio.create_task(ahead)
            try:
                for span in view.window.chunks:
                    chunk = await encoding.get()
                    if isinstance(chunk, Exception):
                        raise chunk
                    stint: Stint = await self._flow.answer_of(encoder, chunk.stint)
                    listener(Moved(span.num_steps, stint, view.window.index, span.index))
                    yield EncodedChunk.of(
                        span.index,
                        chunk.tokens,
                        chunk.note.is_damaged,
                        read_s=chunk.note.stint.duration_s,
                        encode_s=stint.duration_s,
                        taken=partial(credit.give_back, self._flow.num_bytes(view.window, span)),
                    )
            finally:
                pump.cancel()

    async def _read_ahead(
        self,
        view: View,
        encoder: Handle,
        credit: Credit,
        encoding: "asyncio.Queue[_Encoding | Exception]",
        listener: Listener,
    ) -> None:
        """Read chunk after chunk while there is credit, and send each on to the encoder."""
        reader = self._reader
        try:
            begins: View | None = replace(view, requests=())  # of no interest to a reader
            for span in view.window.chunks:
                await credit.take(self._flow.num_bytes(view.window, span))
                frames, noted = reader.read.remote(self._key, begins)
                begins = None
                note: ReadNote = await self._flow.answer_of(reader, noted)
                listener(Moved(span.num_steps, note.stint, view.window.index, span.index))
                left = len(view.window.chunks) - 1 - span.index
                encoding.put_nowait(_Encoding(note, *encoder.encode.remote(frames, left)))
        except Exception as error:  # noqa: BLE001 - raised again by whoever takes the chunks
            encoding.put_nowait(error)


class RayStream:
    """A stream that is open in a decoder replica."""

    def __init__(self, flow: RayFlow, decoder: Handle, key: str, view: View | None) -> None:
        self._flow = flow
        self._decoder = decoder
        self._key = key
        self._view = view
        self.is_answered = False  # after which the decoder closes it

    async def prefill(self, chunk: EncodedChunk) -> Stint:
        chunks = self._view.window.chunks if self._view else ()
        left = len(chunks) - 1 - chunk.index
        call: Awaitable[Stint] = self._decoder.prefill.remote(self._key, chunk.tokens, left)
        return await self._flow.answer_of(self._decoder, call)

    async def write(self, requests: Sequence[Request]) -> AsyncGenerator[Piece, None]:
        questions = self._flow.prompts.questions(self._view, requests)
        ask = self._decoder.ask.options(num_returns="streaming")
        batches = ask.remote(self._key, questions)
        remaining = len(questions)
        while remaining:
            reference = await self._flow.answer_of(self._decoder, anext(batches))
            pieces: list[Piece] = await self._flow.answer_of(self._decoder, reference)
            for piece in pieces:
                remaining -= piece.result is not None
                self.is_answered = remaining == 0
                yield piece
