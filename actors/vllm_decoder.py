"""A decoder replica over vLLM as a Ray actor, called as actors/language_decoder.py is.

vLLM has a process of its own, and one for each rank. When it dies this actor ends, Ray starts both
again, and the videos that were open run again with the same words.
"""

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import ray

from actors.calls import end_process, loading
from actors.host_watch import until_gone
from actors.metrics import Metrics, process_of_actor
from actors.parcel import TokenParcel
from actors.profile import Profile
from actors.starting import loaded
from actors.vllm.decoder import VLLMDecoder
from actors.vllm.version import require_vllm
from pipeline.engine.ids import StreamId
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Question, TextDelta, joined
from pipeline.errors import Transient
from pipeline.families.qwen2_vl.config import load_config
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.gathered import gathered
from pipeline.leases import Claim, Lessor
from pipeline.model.tokenizer import Tokenizer
from pipeline.span import Span


@ray.remote(max_restarts=-1, max_task_retries=0)
class VLLMDecoderActor:
    """One replica; tensor parallel is vLLM's own."""

    def __init__(self, checkpoint: str, profile: Profile) -> None:
        folder = Path(checkpoint)
        with loading():
            require_vllm()
            from actors.vllm.start import start_engine  # noqa: PLC0415 - absent where ours serves

            config, tokenizer = load_config(folder), Tokenizer.load(folder)
            self._engine = loaded(
                lambda: start_engine(folder, profile, config=config), start_s=profile.start_s
            )
            self._engine.drop_names()
            self._decoder = VLLMDecoder(
                self._engine,
                config=config,
                tokenizer=tokenizer,
                eos_ids=load_generation(folder).eos_ids,
                limits=profile.decoders.limits,
                process=process_of_actor(),
                observe=self._count,
                on_loss=end_process,
            )
        self._metrics = Metrics()
        self._lessor = Lessor(
            lambda: self._decoder.streams,
            self.close,
            lease_s=profile.lease_s,
            until_gone=until_gone,
        )

    async def open(self, stream: StreamId, media: Sequence[PromptWindow]) -> None:
        self._lessor.watch(stream.owner)
        await self._decoder.open(stream, media)
        self._measure_cache()

    async def prefill(self, stream: StreamId, parcel: TokenParcel, number: int, left: int) -> Span:
        return await self._decoder.prefill(stream, parcel.unpack(), number=number, left=left)

    async def ask(
        self, stream: StreamId, questions: Sequence[Question], closes: bool
    ) -> AsyncIterator[list[TextDelta]]:
        """Answer all questions at once: words as they come, those of 0.2 s together."""
        async for deltas in gathered(self._decoder.ask(stream, questions, closes=closes)):
            yield joined(deltas)
        self._measure_cache()

    async def close(self, stream: StreamId) -> None:
        await self._decoder.close(stream)
        self._measure_cache()

    async def release(self, owner: str) -> None:
        """Close every stream that a stream host of this name left behind."""
        await self._decoder.release(owner)
        self._measure_cache()

    async def is_short(self) -> bool:
        """Whether a stream waits for room."""
        return await self._decoder.is_short()

    async def renew(self, claim: Claim) -> None:
        """Close what its holder wants no more."""
        await self._lessor.renew(claim)
        self._measure_cache()

    async def streams(self) -> tuple[StreamId, ...]:
        """Of those that are open, or wait to be."""
        return self._decoder.streams

    async def process_id(self) -> int:
        """Of this actor, which is well if vLLM is: else it ends, and starts again with it."""
        if self._engine.is_dead:
            end_process(Transient("vLLM's process is gone; its replica starts again"))
        return os.getpid()

    async def process_ids(self) -> list[int]:
        """Of this actor, then of those that vLLM runs in."""
        return [os.getpid(), *self._engine.process_ids()]

    def _count(self, span: Span) -> None:
        num_chunks = int(span.stage == "prefill")
        num_waiting = self._decoder.num_waiting
        self._metrics.count(span, num_chunks=num_chunks, num_waiting=num_waiting)

    def _measure_cache(self) -> None:
        self._metrics.hold(self._decoder.num_held_tokens, max_tokens=self._decoder.num_tokens)
