"""Room for streams: one budget of tokens; all that a stream may need is reserved at its opening."""

from collections.abc import Sequence

from pipeline.config import EngineLimits
from pipeline.engine.layout import PromptWindow
from pipeline.errors import BadInput, FailureCode, Transient


class Admission:
    """Counts the tokens that open streams hold of the engine's budget."""

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        self._num_reserved = 0

    @property
    def num_free_tokens(self) -> int:
        """Tokens that streams to come can reserve."""
        return self.limits.max_tokens - self._num_reserved

    @property
    def kv_share(self) -> float:
        """Of the budget, what open streams hold."""
        return self._num_reserved / self.limits.max_tokens

    def reserve(self, media: Sequence[PromptWindow]) -> int:
        """Take the tokens of a stream over these media and its questions; returns how many.

        BadInput(TOKEN_BUDGET) if it could never fit, Transient while other streams hold the room.
        """
        num_tokens = sum(medium.num_tokens for medium in media) + self.limits.question_tokens
        if num_tokens > self.limits.max_tokens:
            limit = f"limit {self.limits.max_tokens}"
            raise BadInput(FailureCode.TOKEN_BUDGET, f"needs {num_tokens} tokens; {limit}")
        if num_tokens > self.num_free_tokens:
            raise Transient(f"needs {num_tokens} tokens; {self.num_free_tokens} are free")
        self._num_reserved += num_tokens
        return num_tokens

    def release(self, num_tokens: int) -> None:
        """Give back what `reserve` took."""
        self._num_reserved -= num_tokens
