"""How a video flows from stage to stage, wherever they are: in order, ahead, within credit."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import uuid4

from pipeline.carried_out import carried_out
from pipeline.config import VIDEO_BYTES
from pipeline.credit import Credit
from pipeline.engine.ids import StreamId
from pipeline.engine.question import Question, TextDelta
from pipeline.events import Listener, Moved
from pipeline.leases import Claim
from pipeline.patience import Patience
from pipeline.pool import Answering, Berth, Pool
from pipeline.ports import Decoder, Encoded, Encoder, FrameReader, Frames, Opened, Read, Tokens
from pipeline.served_model import ServedModel
from pipeline.span import Span
from pipeline.tasks.requests import View
from pipeline.types import ChunkSpan, SamplingPlan, Window
from pipeline.video.plan import Planner
from pipeline.video.source import Source

Holder = TypeVar("Holder", bound=Answering)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedChunk(Generic[Tokens]):
    """A token chunk and what it took to make it.

    taken: to be called when the decoder has it or never will, so that others may have its room.
    """

    place: ChunkSpan
    tokens: Tokens
    num_frames: int
    num_damaged: int
    read_s: float
    encode_s: float
    taken: Callable[[], None]


class Flow(Generic[Frames, Tokens]):
    """Opens videos and streams on pools of readers, encoders and decoders.

    owner: whose streams they are, in every id. video_bytes: what one video may have on its way.
    patience: with each video, whatever hangs.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        readers: Pool[FrameReader[Frames]],
        encoders: Pool[Encoder[Frames, Tokens]],
        decoders: Pool[Decoder[Tokens]],
        planner: Planner,
        owner: str = "local",
        video_bytes: int = VIDEO_BYTES,
        patience: Patience | None = None,
    ) -> None:
        self.model = model
        self.video_bytes = video_bytes
        self.patience = patience or Patience()
        self._readers, self.encoders, self._decoders = readers, encoders, decoders
        self._planner = planner
        self._owner, self._life = owner, uuid4().hex[:8]
        self._next_number = 0
        self._held: set[StreamId] = set()  # open, in readers and decoders

    async def open(self, source: Source, *, yields: bool = False) -> "Video[Frames, Tokens]":
        """Open and plan a video: header and packet index only. Close it.

        yields: as of StreamId, with all that is done for it.
        """
        berth, name = self._held_in(self._readers, load=1, yields=yields)
        try:
            with berth.calling() as reader:
                opened = await reader.open(name, source)
            return Video(self, berth, name, opened, self._planner.of(source))
        except BaseException:
            berth.give_back()
            await berth.member.close(name)
            raise

    async def stream(self, view: View | None, *, yields: bool = False) -> "DecoderStream[Tokens]":
        """Room in a decoder for a view, or for prompts of text alone. Close it."""
        media = self.model.prompts.media(view)
        num_tokens = sum(medium.num_tokens for medium in media)
        num_tokens += self.model.prompts.limits.question_tokens
        berth, name = self._held_in(self._decoders, load=num_tokens, yields=yields)
        stream = DecoderStream(berth, name, view, num_tokens=num_tokens)
        try:
            with berth.calling() as decoder:
                await decoder.open(stream.name, media)
        except BaseException:
            await stream.close()
            raise
        return stream

    def num_bytes(self, window: Window, place: ChunkSpan) -> int:
        """What a chunk of this window holds on its way: its frames, then also its tokens."""
        num_frames = place.num_steps * window.grid.geometry.temporal
        frames = num_frames * window.grid.size.num_pixels * 3
        return frames + place.num_steps * window.grid.tokens_per_step * self.model.token_bytes

    async def release(self) -> None:
        """Free what an earlier life of this owner left open; who was restarted holds nothing."""
        await asyncio.gather(
            *(reader.release(self._owner) for reader in self._readers.members),
            *(decoder.release(self._owner) for decoder in self._decoders.members),
        )

    async def ready(self) -> None:
        """Wait until there is somebody for every stage; of who is lost only if nobody lives."""
        pools = (self._readers.ready(), self.encoders.ready(), self._decoders.ready())
        await asyncio.gather(*pools)

    async def is_short(self) -> bool:
        """Whether a stream waits for room in some decoder, whoever's it is."""
        return any(await asyncio.gather(*(each.is_short() for each in self._decoders.members)))

    def renew(self) -> None:
        """Tell readers and decoders what is still held of them; they close the rest."""
        numbers = frozenset(name.number for name in self._held)
        claim = Claim(self._owner, self._life, numbers, below=self._next_number)
        for reader in self._readers.members:
            reader.renew(claim)
        for decoder in self._decoders.members:
            decoder.renew(claim)

    def _held_in(
        self, pool: Pool[Holder], *, load: int, yields: bool
    ) -> tuple[Berth[Holder], StreamId]:
        """A berth, and the name of what it is for, which is held until the berth is given back."""
        berth = pool.least_loaded(load=load)
        name = StreamId(self._owner, self._life, self._next_number, yields)
        self._next_number += 1
        self._held.add(name)

        def give_back() -> None:
            berth.give_back()
            self._held.discard(name)

        return replace(berth, give_back=give_back), name


AnyFlow = Flow[Any, Any]  # of whoever does not care how chunks travel


class Video(Generic[Frames, Tokens]):
    """A video that is open in a reader."""

    def __init__(
        self,
        flow: Flow[Frames, Tokens],
        berth: Berth[FrameReader[Frames]],
        name: StreamId,
        opened: Opened,
        planner: Planner,
    ) -> None:
        self.media, self.etag, self.size_bytes = opened.media, opened.etag, opened.size_bytes
        self.sandbox = opened.sandbox
        self.plan = planner.plan(opened.media, source_id=opened.etag)
        self._flow = flow
        self._berth = berth
        self._name = name
        self._planner = planner

    def still_at(self, time_s: float) -> SamplingPlan:
        """The plan of the one frame shown at time_s."""
        return self._planner.plan_still(self.media, time_s, source_id=self.etag)

    async def close(self) -> None:
        """Let its children go, whatever becomes of the caller; twice is once."""
        self._berth.give_back()
        await carried_out(self._berth.member.close(self._name))

    async def token_chunks(
        self, view: View, *, listener: Listener
    ) -> AsyncGenerator[EncodedChunk[Tokens], None]:
        """The view's chunks in order; reader and encoder work ahead as far as the credit goes.

        The listener hears of "read" and "encode".
        """
        # Always the same encoder for one video, so that its chunks are encoded in order.
        berth = self._flow.encoders.least_loaded(load=view.window.grid.num_tokens)
        ahead = _Ahead(self._flow, self._berth, berth, self._name, view, listener)
        try:
            async with aclosing(ahead.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            berth.give_back()


class _Ahead(Generic[Frames, Tokens]):
    """One view's chunks on their way: read while there is credit, encoded in that order."""

    def __init__(
        self,
        flow: Flow[Frames, Tokens],
        reader: Berth[FrameReader[Frames]],
        encoder: Berth[Encoder[Frames, Tokens]],
        name: StreamId,
        view: View,
        listener: Listener,
    ) -> None:
        self._flow, self._reader, self._encoder = flow, reader, encoder
        self._name, self._view, self._tell = name, view, listener
        self._credit = Credit(flow.video_bytes)
        self._encoding: asyncio.Queue[
            tuple[Read[Frames], asyncio.Task[Encoded[Tokens]]] | Exception
        ] = asyncio.Queue()

    async def chunks(self) -> AsyncGenerator[EncodedChunk[Tokens], None]:
        window = self._view.window
        reading = asyncio.create_task(self._read_all())
        try:
            for place in window.chunks:
                item = await self._encoding.get()
                if isinstance(item, Exception):
                    raise item
                read, encoding = item
                encoded = await encoding
                self._tell(Moved(place.num_steps, encoded.span, window.index, place.index))
                yield EncodedChunk(
                    place=place,
                    tokens=encoded.tokens,
                    num_frames=len(read.is_damaged),
                    num_damaged=sum(read.is_damaged),
                    read_s=read.span.duration_s,
                    encode_s=encoded.span.duration_s,
                    taken=partial(self._credit.give_back, self._flow.num_bytes(window, place)),
                )
        finally:
            reading.cancel()
            await self._drop(reading)

    async def _read_all(self) -> None:
        """Read chunk after chunk while there is credit, and send each on to the encoder."""
        window = self._view.window
        begins: View | None = replace(self._view, requests=())  # of no interest to a reader
        try:
            for place in window.chunks:
                await self._credit.take(self._flow.num_bytes(window, place))
                with self._reader.calling() as reader:
                    read = await reader.read(self._name, begins)
                begins = None
                self._tell(
                    Moved(place.num_steps, read.span, window.index, place.index, read.is_damaged)
                )
                left = len(window.chunks) - 1 - place.index
                encoding = asyncio.create_task(self._encode(read.frames, left=left))
                self._encoding.put_nowait((read, encoding))
        except Exception as error:  # noqa: BLE001 - raised again by whoever takes the chunks
            self._encoding.put_nowait(error)

    async def _encode(self, frames: Frames, *, left: int) -> Encoded[Tokens]:
        with self._encoder.calling() as encoder:
            return await encoder.encode(frames, left=left, yields=self._name.yields)

    async def _drop(self, reading: "asyncio.Task[None]") -> None:
        """Nobody wants what is still on its way."""
        dropped: list[asyncio.Task[Any]] = [reading]
        while not self._encoding.empty():
            item = self._encoding.get_nowait()
            if not isinstance(item, Exception):
                item[1].cancel()
                dropped.append(item[1])
        await asyncio.gather(*dropped, return_exceptions=True)


class DecoderStream(Generic[Tokens]):
    """The language model looking at one view, or at text alone. num_tokens: what it reserves."""

    def __init__(
        self, berth: Berth[Decoder[Tokens]], name: StreamId, view: View | None, *, num_tokens: int
    ) -> None:
        self.name = name
        self.num_tokens = num_tokens
        self.is_open = True
        self._berth = berth
        self._chunks = view.window.chunks if view else ()

    async def prefill(self, chunk: EncodedChunk[Tokens]) -> Span:
        """Take the next chunk; returns what that took."""
        number = chunk.place.index
        left = len(self._chunks) - 1 - number
        with self._berth.calling() as decoder:
            return await decoder.prefill(self.name, chunk.tokens, number=number, left=left)

    async def ask(
        self, questions: Sequence[Question], *, closes: bool = False
    ) -> AsyncGenerator[TextDelta, None]:
        """Answer all questions at once, piece by piece; a failure is its question's.

        closes: the stream, after the last answer.
        """
        with self._berth.calling() as decoder:
            async with aclosing(decoder.ask(self.name, questions, closes=closes)) as deltas:
                async for delta in deltas:
                    yield delta
        if closes:  # the decoder has done it, unless whoever listens gave up at the last words
            self.is_open = False
            self._berth.give_back()

    async def close(self) -> None:
        """Free everything it holds, whatever becomes of the caller; twice is once."""
        self._berth.give_back()
        if self.is_open:
            self.is_open = False
            await carried_out(self._berth.member.close(self.name))
