"""A question being answered: its own keys and values after the video's, and what it has written."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.engine.answer import AnswerText
from pipeline.engine.cache import KVCache
from pipeline.engine.question import Completion, Question
from pipeline.engine.sampler import Sampler
from pipeline.engine.step import Addition
from pipeline.errors import BadInput
from pipeline.families.qwen2_vl.positions import text_positions

if TYPE_CHECKING:
    from pipeline.engine.writing import Writing


class Generation:
    """Steps take its `addition` and it takes what they chose, until there is a `completion`.

    new_cache: makes its memory. It is called by the first addition, with everything else that takes
    time (a copy of a video's keys and values, a constraint to compile), so that to begin costs
    nothing and the work is done where steps run. num_reserved: tokens that memory has room for.
    """

    def __init__(
        self,
        writing: "Writing",
        question: Question,
        *,
        prompt_ids: Sequence[int],
        position: int,
        num_reserved: int,
        new_cache: Callable[[], KVCache],
    ) -> None:
        self.question = question
        self.num_reserved = num_reserved
        self._writing = writing
        self._prompt_ids = prompt_ids
        self._position = position  # of the first token not in the cache yet
        self._pending: tuple[int, ...] = question.ids
        self._new_cache = new_cache
        self._cache: KVCache | None = None
        self._sampler: Sampler | None = None
        self._answer = AnswerText(question, writing.tokenizer, eos_ids=writing.eos_ids)

    @property
    def completion(self) -> Completion | None:
        return self._answer.completion

    def addition(self) -> Addition:
        """What the next step has to run: the whole question first, then the last token chosen.

        BadInput(BAD_PROMPT) for a constraint that cannot be used; `fail` with it.
        """
        if self._sampler is None:
            self._sampler = self._writing.sampler(self.question, prompt_ids=self._prompt_ids)
        if self._cache is None:
            self._cache = self._new_cache()
        positions = text_positions(self._position, len(self._pending))
        return Addition(self._cache, self._pending, positions, sampler=self._sampler)

    def accept(self, chosen: int | BadInput) -> str:
        """Take what the step chose; returns the text that became certain."""
        if isinstance(chosen, BadInput):
            return self.fail(chosen)
        self._position += len(self._pending)
        self._pending = (chosen,)
        is_complete = self._sampler is not None and self._sampler.is_complete
        return self._answer.accept(chosen, is_constraint_complete=is_complete)

    def fail(self, error: BadInput) -> str:
        """End without an answer; returns no text."""
        return self._answer.fail(error)
