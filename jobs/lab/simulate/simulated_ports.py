"""A reader, an encoder, and a host's calls: the ports that a simulated flow runs over."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from jobs.lab.simulate.resources import Shared
from jobs.plan.hardware import Cost
from jobs.plan.load import num_decoded
from jobs.plan.operations import tower_flops
from pipeline.config import ModelConfig
from pipeline.engine.ids import StreamId
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Question, TextDelta
from pipeline.errors import Transient
from pipeline.leases import Claim
from pipeline.ports import Encoded, Opened, Read
from pipeline.span import Process, Span
from pipeline.tasks.requests import View
from pipeline.types import FrameChunk, MediaInfo, TokenChunk
from pipeline.video.source import Source

Value = TypeVar("Value")
_HERE = Process.here("simulated")
_PIXEL = torch.zeros(1, dtype=torch.uint8)
_NUMBER = torch.zeros(1, dtype=torch.bfloat16)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A view that is being read: seconds of each of its chunks."""

    view: View
    chunk_s: float


class SimulatedReader:
    """Videos by their uri; each chunk takes its share of what decoding the view costs.

    num_at_once: as a reader's threads. urgency: of its first video, as precedence has it.
    """

    def __init__(
        self, media: Mapping[str, MediaInfo], cost: Cost, cores: Shared, *, num_at_once: int
    ) -> None:
        self._media, self._cost, self._cores = media, cost, cores
        self._threads = asyncio.Semaphore(num_at_once)
        self._open: dict[StreamId, tuple[MediaInfo, int]] = {}
        self._reading: dict[StreamId, tuple[_Reading, int]] = {}
        self.busy_s = 0.0

    async def open(self, video: StreamId, source: Source) -> Opened:
        media = self._media[source.uri]
        self._open[video] = media, 19 if self._open else 5
        await self._work(video, self._cost.video_s)
        return Opened(media=media, etag=source.uri, size_bytes=1)

    async def read(self, video: StreamId, begins: View | None) -> Read[FrameChunk]:
        if video not in self._open:
            raise Transient("the reader was restarted and lost the video")
        if begins is not None:
            media, _ = self._open[video]
            pixels = num_decoded(media, begins.window) * media.coded_width * media.coded_height
            seconds = self._cost.work_s * pixels / len(begins.window.chunks)
            self._reading[video] = _Reading(begins, seconds), 0
        reading, number = self._reading[video]
        self._reading[video] = reading, number + 1
        await self._work(video, reading.chunk_s + self._cost.chunk_s)
        return _read(reading.view, number)

    async def _work(self, video: StreamId, seconds: float) -> None:
        _, urgency = self._open[video]
        self.busy_s += seconds
        async with self._threads:
            await self._cores.use(seconds, urgency=urgency)

    async def close(self, video: StreamId) -> None:
        self._open.pop(video, None)
        self._reading.pop(video, None)

    async def release(self, owner: str) -> None:
        self._open.clear()

    def renew(self, claim: Claim) -> None:
        return

    async def ready(self) -> bool:
        return True


def _read(view: View, number: int) -> Read[FrameChunk]:
    grid, place = view.window.grid, view.window.chunks[number]
    num_frames = place.num_steps * grid.geometry.temporal
    chunk = FrameChunk(
        plan_hash=view.plan.hash,
        window_index=view.window.index,
        index=place.index,
        geometry=grid.geometry,
        frames=_PIXEL.expand(num_frames, grid.size.height, grid.size.width, 3),
        is_damaged=(False,) * num_frames,
    )
    now_s = asyncio.get_running_loop().time()
    return Read(chunk, chunk.is_damaged, _HERE.span("read", now_s, num_frames=num_frames))


class SimulatedTower:
    """Takes the place of model.encoder.VisionEncoder."""

    num_weights = 0

    def __init__(self, config: ModelConfig, cost: Cost, spend: Callable[[float], None]) -> None:
        self._config, self._cost, self._spend = config, cost, spend

    def encode(self, chunks: Sequence[FrameChunk]) -> list[TokenChunk]:
        flops = sum(tower_flops(self._config, chunk.grid) for chunk in chunks)
        self._spend(self._cost.chunk_s * len(chunks) + self._cost.work_s * flops)
        return [
            TokenChunk(
                plan_hash=chunk.plan_hash,
                window_index=chunk.window_index,
                index=chunk.index,
                tokens=_NUMBER.expand(chunk.grid.num_tokens, self._config.hidden_size),
            )
            for chunk in chunks
        ]


class Host:
    """The one process that makes all calls of a fleet: it has a core, and no more.

    words: that an answer takes. latency_s: of a call on its way, of nobody's time.
    """

    def __init__(self, cores: Shared | None, cost: Cost, *, words: int, latency_s: float) -> None:
        self._own = Shared(1)
        self._cores = cores
        # A chunk is read, encoded and prefilled; a video opened twice and asked.
        self.chunk_s, self.video_s, self.latency_s = cost.chunk_s / 3, cost.video_s / 3, latency_s
        self.answer_s = cost.word_s * words
        self.num_calls = 0

    @property
    def busy_s(self) -> float:
        return self._own.busy_s

    async def call(self, seconds: float, work: Callable[[], Awaitable[Value]]) -> Value:
        self.num_calls += 1
        await self._own.use(seconds)
        if self._cores is not None:
            await self._cores.use(seconds, urgency=0)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        return await work()


class Called:
    """A member of a pool, called by a host: its calls cost the host's time."""

    def __init__(self, member: Any, host: Host) -> None:
        self._member, self._host = member, host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._member, name)


class CalledReader(Called):
    async def open(self, video: StreamId, source: Source) -> Opened:
        return await self._host.call(self._host.video_s, partial(self._member.open, video, source))

    async def read(self, video: StreamId, begins: View | None) -> Read[FrameChunk]:
        return await self._host.call(self._host.chunk_s, partial(self._member.read, video, begins))


class CalledEncoder(Called):
    async def encode(
        self, frames: FrameChunk, *, left: int, yields: bool = False
    ) -> Encoded[TokenChunk]:
        encoded = partial(self._member.encode, frames, left=left, yields=yields)
        return await self._host.call(self._host.chunk_s, encoded)


class CalledDecoder(Called):
    async def open(self, stream: StreamId, media: Sequence[PromptWindow]) -> None:
        await self._host.call(self._host.video_s, partial(self._member.open, stream, media))

    async def prefill(
        self, stream: StreamId, tokens: TokenChunk, *, number: int, left: int
    ) -> Span:
        prefilled = partial(self._member.prefill, stream, tokens, number=number, left=left)
        return await self._host.call(self._host.chunk_s, prefilled)

    async def ask(
        self, stream: StreamId, questions: Sequence[Question], *, closes: bool
    ) -> AsyncGenerator[TextDelta, None]:
        seconds = self._host.video_s + self._host.answer_s * len(questions)
        await self._host.call(seconds, partial(asyncio.sleep, 0))
        async for delta in self._member.ask(stream, questions, closes=closes):
            yield delta
