"""A stream's media on their way into vLLM: one session of it, and who waits for which chunk."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from actors.vllm.backend import Backend, EngineLost
from actors.vllm.feed import Feed, Prompt
from pipeline.engine.lane import settle
from pipeline.errors import StreamError, Transient
from pipeline.span import Span
from pipeline.types import TokenChunk


@dataclass(slots=True, eq=False)
class _Computing:
    """A chunk that is on its way into vLLM."""

    num_tokens: int
    done: "asyncio.Future[Span]"
    started_s: float = field(default_factory=time.monotonic)
    num_updates: int = 0  # that were sent and are not computed
    is_sent: bool = False  # there will be no more of it

    @property
    def is_computed(self) -> bool:
        return self.is_sent and not self.num_updates


class MediaSession:
    """Takes chunks by their numbers, whichever arrives first; runs until it is closed.

    spent: makes a span of a chunk, of the time since when it was taken and of its tokens. on_lost:
    is told when vLLM's process is gone.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        feed: Feed,
        *,
        spent: Callable[[float, int], Span],
        on_lost: Callable[[EngineLost], None],
    ) -> None:
        self.failure: Transient | None = None
        self._backend = backend
        self._name = name
        self._feed = feed
        self._spent = spent
        self._on_lost = on_lost
        self._chunks: dict[int, tuple[TokenChunk, asyncio.Future[Span]]] = {}
        self._num_taken = 0
        self._arrived = asyncio.Event()
        self._computing: deque[_Computing] = deque()
        self._computed_s = 0.0  # when the last chunk was
        self._running = asyncio.create_task(self._run()) if feed.num_missing else None

    @property
    def num_waiting(self) -> int:
        """Chunks that came and are not computed."""
        return len(self._chunks) + len(self._computing)

    @property
    def num_missing(self) -> int:
        """Chunks that did not come, or are not computed."""
        return self._feed.num_missing + len(self._computing)

    async def prefill(self, chunk: TokenChunk, number: int) -> Span:
        """Return once the chunk's whole blocks are computed."""
        if self.failure is not None:
            raise self.failure
        if number < self._num_taken or number in self._chunks:
            raise StreamError(f"chunk {number} came twice")
        if self._running is None:
            self._feed.take(chunk)  # refuses it
        done: asyncio.Future[Span] = asyncio.get_running_loop().create_future()
        self._chunks[number] = (chunk, done)
        self._arrived.set()
        return await done

    async def close(self) -> None:
        """Free its blocks; who waits for a chunk gets Transient."""
        self._fail(Transient("the stream was closed"))
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _fail(self, error: Transient) -> None:
        if self.failure is None:
            self.failure = error
        for _, done in self._chunks.values():
            settle(done, self.failure)
        for computing in self._computing:
            settle(computing.done, self.failure)
        self._chunks.clear()
        self._computing.clear()

    async def _run(self) -> None:
        try:
            async for num_updates in self._backend.prefill(self._name, self._updates()):
                for _ in range(num_updates):
                    self._on_computed()
        except EngineLost as error:
            self._fail(error)
            self._on_lost(error)
        except Exception as error:  # noqa: BLE001 - all callers hear it
            self._fail(Transient(f"the engine failed: {error!r}"))

    async def _updates(self) -> AsyncGenerator[Prompt, None]:
        """Updates of the chunks in the order of their numbers; never ends by itself."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._num_taken in self._chunks:
                chunk, done = self._chunks.pop(self._num_taken)
                self._num_taken += 1
                try:
                    self._feed.take(chunk)
                except StreamError as error:
                    settle(done, error)
                    continue
                computing = _Computing(len(chunk.tokens), done)
                self._computing.append(computing)
                while update := await asyncio.to_thread(self._feed.next_update):
                    computing.num_updates += 1
                    yield update
                computing.is_sent = True
                self._settle_computed()

    def _on_computed(self) -> None:
        """The oldest update on its way is computed."""
        first = next((each for each in self._computing if each.num_updates), None)
        if first is not None:
            first.num_updates -= 1
        self._settle_computed()

    def _settle_computed(self) -> None:
        """A chunk is taken when its updates are computed, and those of all before it."""
        while self._computing and self._computing[0].is_computed:
            computing = self._computing.popleft()
            started_s = max(computing.started_s, self._computed_s)  # behind the one before it
            span = self._spent(started_s, computing.num_tokens)
            self._computed_s = span.ended_s
            settle(computing.done, span)
