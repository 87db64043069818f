"""One vLLM and our own engine on the same tiny folder, asked the same."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from actors.vllm.decoder import VLLMDecoder
from actors.vllm.start import start_engine
from pipeline.config import EngineLimits
from pipeline.engine.engine import Engine
from pipeline.engine.ids import StreamId
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Completion, Question
from pipeline.families.qwen2_vl.config import load_config
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.local import LocalModel
from pipeline.model.tokenizer import Tokenizer
from pipeline.types import TokenChunk
from tests.vllm.profiles import vllm_profile

DEADLINE_S = 300


@dataclass
class Engines:
    """Both on one folder, in an event loop that lives as long as vLLM does."""

    folder: Path
    limits: EngineLimits
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    numbers: Any = field(default_factory=count)

    def __post_init__(self) -> None:
        profile = vllm_profile(
            kv_tokens=self.limits.max_tokens, question_tokens=self.limits.question_tokens
        )
        config = load_config(self.folder)
        self.losses = list[BaseException]()
        self.vllm = start_engine(self.folder, profile, config=config)
        self.theirs = VLLMDecoder(
            self.vllm,
            config=config,
            tokenizer=Tokenizer.load(self.folder),
            eos_ids=load_generation(self.folder).eos_ids,
            limits=self.limits,
            on_loss=self.losses.append,
        )
        self.model = LocalModel.load(self.folder, limits=self.limits)
        self.ours = Engine(self.model.rank)

    def close(self) -> None:
        self.vllm.stop()
        self.runner.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(asyncio.wait_for(work, DEADLINE_S))

    def name(self, *, owner: str = "test") -> StreamId:
        return StreamId(owner, "1", next(self.numbers))

    async def both(
        self,
        media: Sequence[PromptWindow],
        chunks: Sequence[TokenChunk],
        questions: Sequence[Question],
    ) -> tuple[list[Completion], list[Completion]]:
        """What ours says, and what vLLM says."""
        return (
            await said(self.ours, self.name(), media, chunks, questions),
            await said(self.theirs, self.name(), media, chunks, questions),
        )


async def fill(
    decoder: Any, name: StreamId, media: Sequence[PromptWindow], chunks: Sequence[TokenChunk]
) -> None:
    await decoder.open(name, media)
    for number, chunk in enumerate(chunks):
        await decoder.prefill(name, chunk, number=number, left=len(chunks) - 1 - number)


async def ask(
    decoder: Any, name: StreamId, questions: Sequence[Question], *, closes: bool = False
) -> list[Completion]:
    ends = dict[int, Completion]()
    async for delta in decoder.ask(name, questions, closes=closes):
        if delta.completion is not None:
            ends[delta.question_index] = delta.completion
    return [ends[index] for index in range(len(questions))]


async def said(
    decoder: Any,
    name: StreamId,
    media: Sequence[PromptWindow],
    chunks: Sequence[TokenChunk],
    questions: Sequence[Question],
) -> list[Completion]:
    await fill(decoder, name, media, chunks)
    return await ask(decoder, name, questions, closes=True)
