"""What the decoder needs of vLLM; async_engine.py has it."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection
from dataclasses import dataclass
from typing import Protocol

from actors.vllm.feed import Prompt
from pipeline.engine.question import Question
from pipeline.errors import Transient


@dataclass(frozen=True, slots=True)
class Chosen:
    """The next tokens of an answer; is_finite: whether the scores they were chosen by were."""

    tokens: tuple[int, ...]
    is_finite: bool = True


class Backend(Protocol):
    """EngineLost when its process is gone."""

    num_blocks: int
    block_tokens: int
    max_prompt_tokens: int  # with its answer
    max_sessions: int

    def prefill(self, name: str, updates: AsyncGenerator[Prompt, None]) -> AsyncIterator[int]:
        """A session: yields how many more updates are computed. Giving it up frees its blocks."""

    def answer(
        self, name: str, prompt: Prompt, question: Question, eos_ids: Collection[int]
    ) -> AsyncGenerator[Chosen, None]:
        """Tokens as they are chosen, an end token included. Giving it up ends it."""


class EngineLost(Transient):
    """vLLM's own process is gone, and everything in it."""
