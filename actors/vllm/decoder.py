"""The decoder port over vLLM: streams, their room, their chunks and their questions.

A stream's media are one session of vLLM's, which gets an update whenever whole blocks of tokens
have come. It stays open as long as the stream does: a session that waits for its next update keeps
its blocks and is never preempted, so the prefix is there for every question, which is a request of
its own over it. But such sessions stall each other for ever when they run out of blocks, so a
stream's whole need is reserved before its first chunk, as our own engine does.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from functools import partial

from actors.vllm.answerer import Answerer
from actors.vllm.backend import Backend
from actors.vllm.fed_stream import FedStream
from actors.vllm.feed import Feed
from actors.vllm.media_session import MediaSession
from actors.vllm.room import Room
from pipeline.config import EngineLimits, ModelConfig
from pipeline.engine.ids import StreamId
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Question, TextDelta
from pipeline.errors import BadInput, FailureCode, Transient
from pipeline.leases import Claim
from pipeline.model.tokenizer import Tokenizer
from pipeline.span import Process, Span, Stage
from pipeline.types import TokenChunk


class VLLMDecoder:
    """Serves streams on one vLLM.

    observe: is told of every chunk that is computed, and of every answer's words. on_loss: is told
    when vLLM's process is gone, after which nothing is served.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        config: ModelConfig,
        tokenizer: Tokenizer,
        eos_ids: Collection[int],
        limits: EngineLimits,
        process: Process | None = None,
        observe: Callable[[Span], None] = lambda span: None,
        on_loss: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.limits = limits
        self.room = Room(min(backend.num_blocks, limits.max_tokens // backend.block_tokens))
        self._seats = Room(backend.max_sessions)
        self._backend = backend
        self._config = config
        self._answerer = Answerer(
            backend,
            tokenizer=tokenizer,
            eos_ids=eos_ids,
            spent=partial(self._spent, "generate"),
        )
        self._process = process or Process.here("decoder")
        self._observe = observe
        self._on_loss = on_loss
        self._opening: dict[StreamId, asyncio.Task[None]] = {}
        self._streams: dict[StreamId, FedStream] = {}

    @property
    def streams(self) -> tuple[StreamId, ...]:
        """Of those that are open, or wait to be."""
        return (*self._opening, *self._streams)

    @property
    def num_waiting(self) -> int:
        """Chunks to prefill, and streams and questions without room yet."""
        streams = self._streams.values()
        return self.room.num_waiting + sum(each.num_waiting for each in streams)

    @property
    def num_tokens(self) -> int:
        """That there is room for."""
        return self.room.num_blocks * self._backend.block_tokens

    @property
    def num_held_tokens(self) -> int:
        """Of them, those that open streams reserved."""
        return self.num_tokens - self.room.num_free * self._backend.block_tokens

    @property
    def kv_share(self) -> float:
        return 1 - self.room.num_free / self.room.num_blocks

    async def open(self, stream: StreamId, media: Sequence[PromptWindow]) -> None:
        """Reserve a stream's blocks, waiting for room. BadInput(TOKEN_BUDGET) if never enough."""
        block = self._backend.block_tokens
        feed = Feed(
            media,
            video_pad_id=self._config.video_pad_id,
            hidden_size=self._config.hidden_size,
            block=block,
        )
        num_tokens = feed.num_tokens + self.limits.question_tokens
        limit = min(self.room.num_blocks * block, self._backend.max_prompt_tokens)
        num_blocks = -(-num_tokens // block)
        if num_tokens > limit or num_blocks > self.room.num_blocks:
            reason = f"needs {num_tokens} tokens; limit {limit}"
            raise BadInput(FailureCode.TOKEN_BUDGET, reason)
        taking = self._opening[stream] = asyncio.create_task(self._reserve(stream, num_blocks))
        try:
            await asyncio.wait({taking})  # which `close` cancels without the caller
        finally:
            is_wanted = self._opening.pop(stream, None) is taking and taking.done()
            if not is_wanted or taking.cancelled():
                taking.add_done_callback(lambda done: self._give_back(done, num_blocks))
                taking.cancel()
        if not is_wanted or taking.cancelled():
            raise Transient("the stream was closed")
        self._streams[stream] = self._fed(str(stream), feed, num_blocks)

    def _fed(self, name: str, feed: Feed, num_blocks: int) -> FedStream:
        spent = partial(self._spent, "prefill")
        session = MediaSession(self._backend, name, feed, spent=spent, on_lost=self._on_loss)
        return FedStream(
            name,
            feed,
            session,
            self._answerer,
            num_blocks=num_blocks,
            block=self._backend.block_tokens,
            max_tokens=self.limits.question_tokens,
            max_position=self._config.max_positions,
            on_lost=self._on_loss,
        )

    async def _reserve(self, stream: StreamId, num_blocks: int) -> None:
        await self._seats.take(1, yields=stream.yields)
        try:
            await self.room.take(num_blocks, yields=stream.yields)
        except asyncio.CancelledError:
            self._seats.give(1)
            raise

    def _give_back(self, reserving: "asyncio.Task[None]", num_blocks: int) -> None:
        if not reserving.cancelled():
            self._seats.give(1)
            self.room.give(num_blocks)

    async def prefill(
        self, stream: StreamId, tokens: TokenChunk, *, number: int, left: int = 0
    ) -> Span:
        """Return once vLLM has computed the chunk's whole blocks."""
        return await self._stream(stream).prefill(tokens, number)

    async def ask(
        self, stream: StreamId, questions: Sequence[Question], *, closes: bool = False
    ) -> AsyncGenerator[TextDelta, None]:
        """Answer all questions at once, as Engine.ask does."""
        async with aclosing(self._stream(stream).ask(questions)) as deltas:
            async for delta in deltas:
                yield delta
        if closes:
            await self.close(stream)

    async def close(self, stream: StreamId) -> None:
        """Free everything the stream holds, whatever state it is in; who waits gets Transient."""
        if (taking := self._opening.pop(stream, None)) is not None:
            taking.cancel()
        if (held := self._streams.pop(stream, None)) is not None:
            await held.close()
            self._seats.give(1)
            self.room.give(held.num_blocks)

    async def release(self, owner: str) -> None:
        """Close every stream of this owner: it is gone."""
        for stream in (*self._opening, *self._streams):
            if stream.owner == owner:
                await self.close(stream)

    async def is_short(self) -> bool:
        """Whether a stream waits for room."""
        return bool(self.room.num_waiting or self._seats.num_waiting)

    def renew(self, claim: Claim) -> None:
        """In one process nobody falls silent; over Ray the actor keeps the claims."""

    async def ready(self) -> bool:
        """It is, or the process of this actor ends."""
        return True

    def _stream(self, stream: StreamId) -> FedStream:
        if stream not in self._streams:
            raise Transient("the decoder has no such stream: it was closed, or lost in a restart")
        return self._streams[stream]

    def _spent(self, stage: Stage, started_s: float, num_tokens: int) -> Span:
        """The span of what was computed since then."""
        share = self.kv_share if stage == "prefill" else None
        span = self._process.span(stage, started_s, num_tokens=num_tokens, kv_share=share)
        self._observe(span)
        return span
