"""The flow over actors: references move through here, pixels and tokens never do."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from actors.encoder import EncodeNote
from actors.profile import Profile
from actors.reader import Opened
from pipeline.errors import Transient, VidrayError
from pipeline.flow import EncodedChunk, Listener, Moved
from pipeline.model.digest import digest, display_name
from pipeline.model.hub_preprocessor import load_preprocessing
from pipeline.model.stream import Piece
from pipeline.model.tokenizer import Tokenizer
from pipeline.prompts import Prompts
from pipeline.tasks.prompt import ChatLayout
from pipeline.tasks.requests import Request, View
from pipeline.types import TEMPORAL, MediaInfo, SamplingPlan
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source

Handle = Any  # Ray makes an actor handle's methods at run time
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Pools:
    """The actors that all stream hosts share."""

    readers: tuple[Handle, ...]
    encoders: tuple[Handle, ...]
    decoders: tuple[Handle, ...]


@dataclass(frozen=True, slots=True)
class PoolNames:
    """What those actors are called. To a stream host they travel as names: of an actor with handles
    in its constructor's arguments Ray fears, aloud, that it could not be restarted.
    """

    readers: tuple[str, ...]
    encoders: tuple[str, ...]
    decoders: tuple[str, ...]

    def find(self) -> Pools:
        return Pools(
            readers=tuple(map(ray.get_actor, self.readers)),
            encoders=tuple(map(ray.get_actor, self.encoders)),
            decoders=tuple(map(ray.get_actor, self.decoders)),
        )


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
        options: PlanOptions,
        profile: Profile,
    ) -> None:
        pixels = load_preprocessing(checkpoint)
        layout = ChatLayout(Tokenizer.load(checkpoint))
        self.model = display_name(checkpoint, int8=profile.decoders.int8)
        self.model_digest = digest(checkpoint)
        self.pools = pools
        self.profile = profile
        self.prompts = Prompts(layout, profile.decoders.limits)
        self._options = options.within(min_pixels=pixels.min_pixels, max_pixels=pixels.max_pixels)
        self._owner = owner
        self._numbers = itertools.count()

    @asynccontextmanager
    async def open(self, source: Source) -> AsyncIterator["RayVideo"]:
        reader, key = random.choice(self.pools.readers), self._new_name()  # noqa: S311
        try:
            opened: Opened = await self.answer_of(reader, reader.open.remote(key, source))
            yield RayVideo(self, reader, key, opened, self._options.of(source))
        finally:
            reader.close.remote(key)

    @asynccontextmanager
    async def stream(self, view: View | None) -> AsyncIterator["RayStream"]:
        decoder, key = random.choice(self.pools.decoders), self._new_name()  # noqa: S311
        try:
            # No time limit: a stream without room waits for as long as others are being served.
            await _translated(decoder.open.remote(key, self.prompts.media(view)))
            yield RayStream(self, decoder, key, view)
        finally:
            decoder.close.remote(key)

    def max_parts(self, max_new_tokens: int) -> int:
        return self.prompts.max_parts(max_new_tokens)

    async def answer_of(self, actor: Handle, call: Awaitable[Result]) -> Result:
        """The call's result; an actor that is silent for too long is killed and starts again."""
        try:
            async with asyncio.timeout(self.profile.stall_s):
                return await _translated(call)
        except TimeoutError:
            ray.kill(actor, no_restart=False)
            raise Transient(f"an actor was silent for {self.profile.stall_s:g} s") from None

    async def release(self, owner: str) -> None:
        """Free what a stream host of this name left open; whoever was restarted holds nothing."""
        actors = (*self.pools.readers, *self.pools.decoders)
        calls = (self.answer_of(actor, actor.release.remote(owner)) for actor in actors)
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, Transient):
                raise result

    async def ready(self) -> None:
        """Wait until every actor answers; one that was lost loads its model again first."""
        actors = (*self.pools.readers, *self.pools.encoders, *self.pools.decoders)
        patience_s = self.profile.stall_s
        await asyncio.gather(*(until_ready(actor, patience_s=patience_s) for actor in actors))

    def _new_name(self) -> str:
        return f"{self._owner}/{next(self._numbers)}"


class RayVideo:
    """A video that is open in a reader."""

    def __init__(
        self, flow: RayFlow, reader: Handle, key: str, opened: Opened, options: PlanOptions
    ) -> None:
        self.media: MediaInfo = opened.media
        self.plan = options.plan(opened.media, source_id=opened.etag)
        self.etag = opened.etag
        self.size_bytes = opened.size_bytes
        self._flow = flow
        self._reader = reader
        self._key = key
        self._options = options

    def still_at(self, time_s: float) -> SamplingPlan:
        return self._options.plan_still(self.media, time_s, source_id=self.etag)

    async def token_chunks(
        self, view: View, *, listener: Listener
    ) -> AsyncGenerator[EncodedChunk, None]:
        """The view's chunks in order; reader and encoder work ahead of whoever takes them."""
        credit = self._flow.profile.chunks_in_flight
        encoding: asyncio.Queue[tuple[Any, Any] | BaseException | None] = asyncio.Queue(credit)
        pump = asyncio.create_task(self._encode_all(view, encoding))
        try:
            while isinstance(item := await encoding.get(), tuple):
                tokens, noted = item
                note: EncodeNote = await self._flow.answer_of(self._encoder, noted)
                listener(Moved("read", note.num_frames // TEMPORAL))
                listener(Moved("encode", note.num_frames // TEMPORAL))
                yield EncodedChunk(
                    tokens=tokens,
                    num_frames=note.num_frames,
                    num_damaged=note.num_damaged,
                    read_s=note.read_s,
                    encode_s=note.encode_s,
                )
            if item is not None:
                raise item
        finally:
            pump.cancel()

    @property
    def _encoder(self) -> Handle:
        """Always the same one of a video, so that its chunks are encoded in order."""
        encoders = self._flow.pools.encoders
        return encoders[hash(self._key) % len(encoders)]

    async def _encode_all(
        self, view: View, encoding: "asyncio.Queue[tuple[Any, Any] | BaseException | None]"
    ) -> None:
        """Send every chunk that the reader yields to the encoder; a full queue stops the reader."""
        frames = self._reader.read.options(
            num_returns="streaming",
            _generator_backpressure_num_objects=self._flow.profile.chunks_in_flight,
        ).remote(self._key, view.plan, view.window)
        try:
            for _ in view.window.chunks:
                parcel = await self._flow.answer_of(self._reader, anext(frames))
                await encoding.put(tuple(self._encoder.encode.remote(parcel)))
            await encoding.put(None)
        except StopAsyncIteration:
            # The generator's last object tells why it ended early.
            await encoding.put(Transient("the reader ended before the plan did"))
        except VidrayError as error:
            await encoding.put(error)


class RayStream:
    """A stream that is open in a decoder replica."""

    def __init__(self, flow: RayFlow, decoder: Handle, key: str, view: View | None) -> None:
        self._flow = flow
        self._decoder = decoder
        self._key = key
        self._view = view

    async def prefill(self, chunk: EncodedChunk) -> None:
        call = self._decoder.prefill.remote(self._key, chunk.tokens)
        await self._flow.answer_of(self._decoder, call)

    async def write(self, requests: Sequence[Request]) -> AsyncGenerator[Piece, None]:
        questions = self._flow.prompts.questions(self._view, requests)
        ask = self._decoder.ask.options(num_returns="streaming")
        pieces = ask.remote(self._key, questions)
        remaining = len(questions)
        while remaining:
            reference = await self._flow.answer_of(self._decoder, anext(pieces))
            piece: Piece = await self._flow.answer_of(self._decoder, reference)
            remaining -= piece.result is not None
            yield piece


async def until_ready(actor: Handle, *, patience_s: float) -> None:
    """Return when the actor answers, or when patience is at its end: the next call says why."""
    deadline, delay_s = time.monotonic() + patience_s, 0.1
    while time.monotonic() < deadline:
        try:
            async with asyncio.timeout(patience_s):
                await _translated(actor.process_id.remote())
            return
        except (Transient, TimeoutError):
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 2.0)


async def _translated(call: Awaitable[Result]) -> Result:
    """The call's result; our own errors arrive as themselves, losses as Transient."""
    try:
        return await call
    except RayTaskError as error:
        if isinstance(error.cause, VidrayError):
            raise error.cause from None
        raise
    except RayError as error:
        raise Transient(f"lost on the way: {type(error).__name__}") from error
