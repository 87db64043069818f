"""The engine: one language model, its tokenizer, and the streams open on it."""

from collections.abc import Collection, Sequence

from pipeline.config import EngineLimits
from pipeline.engine.answer import Writers
from pipeline.engine.layout import PromptWindow
from pipeline.engine.stream import Stream
from pipeline.errors import BadInput, FailureCode, Transient
from pipeline.model.arrange import arrange_for_generation
from pipeline.model.language import LanguageModel
from pipeline.model.tokenizer import Tokenizer


class Engine:
    """Opens streams within one budget of tokens, all of it reserved when a stream opens."""

    def __init__(
        self,
        language: LanguageModel,
        tokenizer: Tokenizer,
        *,
        eos_ids: Collection[int],
        limits: EngineLimits | None = None,
    ) -> None:
        arrange_for_generation(language)
        self._language = language
        self._writers = Writers(tokenizer, eos_ids=eos_ids)
        self._limits = limits or EngineLimits()
        self._num_reserved = 0

    @property
    def num_free_tokens(self) -> int:
        """Tokens that streams to come can reserve."""
        return self._limits.max_tokens - self._num_reserved

    @property
    def kv_share(self) -> float:
        """Of the budget, what open streams hold."""
        return self._num_reserved / self._limits.max_tokens

    def open(self, media: Sequence[PromptWindow]) -> Stream:
        """A stream for these media in this order; without any, for prompts of text alone.

        BadInput(TOKEN_BUDGET) if it could never fit, Transient while other streams hold the room.
        """
        num_tokens = sum(medium.num_tokens for medium in media) + self._limits.question_tokens
        if num_tokens > self._limits.max_tokens:
            limit = f"limit {self._limits.max_tokens}"
            raise BadInput(FailureCode.TOKEN_BUDGET, f"needs {num_tokens} tokens; {limit}")
        if num_tokens > self.num_free_tokens:
            raise Transient(f"needs {num_tokens} tokens; {self.num_free_tokens} are free")
        stream = Stream(
            self._language,
            self._writers,
            media=media,
            question_tokens=self._limits.question_tokens,
            on_close=lambda: self._release(num_tokens),
        )
        self._num_reserved += num_tokens
        return stream

    def _release(self, num_tokens: int) -> None:
        self._num_reserved -= num_tokens
