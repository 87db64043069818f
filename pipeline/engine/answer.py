"""What an answer says so far: token by token, until there is a completion."""

from collections.abc import Collection

from pipeline.engine.question import Completion, FinishReason, Question
from pipeline.engine.visible_text import VisibleText
from pipeline.errors import BadInput
from pipeline.model.tokenizer import Detokenizer, Tokenizer


class AnswerText:
    """Takes the tokens of one answer, whichever engine chose them, and says where it ends."""

    def __init__(
        self, question: Question, tokenizer: Tokenizer, *, eos_ids: Collection[int]
    ) -> None:
        self.completion: Completion | None = None
        self._max_new_tokens = question.sampling.max_new_tokens
        self._eos_ids = eos_ids
        self._token_ids: list[int] = []
        self._text = VisibleText(
            Detokenizer(tokenizer, keep_control=question.keep_control),
            stops=question.sampling.stop,
        )

    def accept(self, token: int, *, is_constraint_complete: bool = False) -> str:
        """Take the next token; returns the text that became certain.

        is_constraint_complete: nothing may follow it.
        """
        if token in self._eos_ids:
            return self._finish("stop")
        self._token_ids.append(token)
        text = self._text.push(token)
        if self._text.is_stopped:
            return text + self._finish("stop")
        if is_constraint_complete:
            return text + self._finish("constraint")
        if len(self._token_ids) == self._max_new_tokens:
            return text + self._finish("length")
        return text

    def fail(self, error: BadInput) -> str:
        """End without an answer; returns no text."""
        self.completion = Completion(error=error)
        return ""

    def _finish(self, reason: FinishReason) -> str:
        text = self._text.finish()
        self.completion = Completion(
            text=self._text.whole,
            token_ids=tuple(self._token_ids),
            finish_reason="stop" if self._text.is_stopped else reason,
        )
        return text
