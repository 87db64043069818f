"""Encoding: chunks of any videos that wait are one batch of the vision tower."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from pipeline.cores import use_threads
from pipeline.engine.lane import settle
from pipeline.errors import Transient
from pipeline.model.encoder import VisionEncoder
from pipeline.ports import Encoded
from pipeline.span import Process, Span
from pipeline.stages.order import LeastLeftFirst
from pipeline.types import FrameChunk, TokenChunk
from pipeline.video.windows import CHUNK_TOKENS

BATCH_TOKENS = CHUNK_TOKENS  # a full chunk keeps a CPU's tower busy alone
SMALL_CHUNKS = 4  # in the room of a full one: more only makes the first of them wait


@dataclass(frozen=True, slots=True, eq=False)
class WaitingFrames:
    """A chunk of frames, how many of its window come after it, and whether others go first."""

    chunk: FrameChunk
    left: int
    yields: bool
    done: "asyncio.Future[Encoded[TokenChunk]]"


class EncodingStage:
    """Encodes what waits, in one thread of `thread`.

    num_threads: of torch, at most; None leaves them alone. to_host: tokens leave the device there.
    batch_tokens: that are encoded together, but for a larger chunk, which is alone.
    observe: is told of every batch, its chunks, and how many are left. batch_s: a batch that takes
    longer has failed, and on_failure is told.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        *,
        thread: Executor,
        num_threads: int | None = None,
        to_host: bool = False,
        batch_tokens: int = BATCH_TOKENS,
        process: Process | None = None,
        observe: Callable[[Span, int, int], None] = lambda span, num_chunks, num_waiting: None,
        batch_s: float | None = None,
        on_failure: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._encoder = encoder
        self._thread = thread
        self._num_threads = num_threads
        self._to_host = to_host
        self._batch_tokens = batch_tokens
        self._process = process or Process.here("encoder")
        self._observe = observe
        self._batch_s = batch_s
        self._on_failure = on_failure
        self._waiting: list[WaitingFrames] = []
        self._order = LeastLeftFirst()
        self._encoding: asyncio.Task[None] | None = None

    async def encode(
        self, frames: FrameChunk, *, left: int, yields: bool = False
    ) -> Encoded[TokenChunk]:
        """The chunk's tokens, and what that took: the time of its whole batch.

        left: chunks of the window after it
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Encoded[TokenChunk]] = loop.create_future()
        self._waiting.append(WaitingFrames(frames, left, yields, done))
        running = self._encoding
        if running is None or running.done() or running.get_loop() is not loop:
            self._encoding = loop.create_task(self._encode_all())
        return await done

    async def ready(self) -> bool:
        """It always is."""
        return True

    async def _encode_all(self) -> None:
        while batch := self._take_batch():
            await self._encode_batch(batch)

    async def _encode_batch(self, batch: list[WaitingFrames]) -> None:
        chunks = [each.chunk for each in batch]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._batch_s):
                encoded, span = await loop.run_in_executor(self._thread, self._timed, chunks)
        except Exception as error:  # noqa: BLE001 - each waiter is told
            told = error
            if isinstance(error, TimeoutError):
                self._on_failure(error)
                told = Transient(f"an encoder hangs for {self._batch_s:g} s")
            for each in batch:
                settle(each.done, told)
            return
        self._observe(span, len(batch), len(self._waiting))
        for each, chunk in zip(batch, encoded, strict=True):
            tokens = chunk.tokens
            share = replace(span, num_tokens=tokens.shape[0], num_bytes=tokens.nbytes)
            settle(each.done, Encoded(chunk, share))

    def _take_batch(self) -> list[WaitingFrames]:
        """The oldest chunk of each of some videos: a second one would only keep the first back."""
        self._waiting = [each for each in self._waiting if not each.done.done()]  # nor given up
        oldest: dict[str, WaitingFrames] = {}
        for each in self._waiting:
            oldest.setdefault(each.chunk.plan_hash, each)
        batch: list[WaitingFrames] = []
        room = self._batch_tokens
        for each in self._order.sorted(
            oldest.values(), left=lambda each: each.left, yields=lambda each: each.yields
        ):
            num_tokens = each.chunk.grid.num_tokens
            if not batch or num_tokens <= room:
                batch.append(each)
                room -= num_tokens
        batch = batch[: SMALL_CHUNKS * max(1, self._batch_tokens // CHUNK_TOKENS)]
        self._waiting = [each for each in self._waiting if each not in batch]
        return batch

    def _timed(self, chunks: Sequence[FrameChunk]) -> tuple[list[TokenChunk], Span]:
        """In the thread, which others may share: waiting for them is not this batch's time."""
        started_s = time.monotonic()
        encoded = self._encode(chunks)
        num_tokens = sum(chunk.tokens.shape[0] for chunk in encoded)
        num_bytes = sum(chunk.tokens.nbytes for chunk in encoded)
        return encoded, self._process.span(
            "encode", started_s, num_tokens=num_tokens, num_bytes=num_bytes
        )

    def _encode(self, chunks: Sequence[FrameChunk]) -> list[TokenChunk]:
        if self._num_threads is not None:
            num_weights = self._encoder.num_weights
            num_patches = sum(chunk.grid.num_patches for chunk in chunks)
            num_products = num_patches * num_weights
            use_threads(self._num_threads, num_weights=num_weights, num_products=num_products)
        encoded = self._encoder.encode(chunks)
        if self._to_host:
            return [replace(chunk, tokens=chunk.tokens.cpu()) for chunk in encoded]
        return encoded
