"""One question and the answer being written to it: tokens in, text out, and when to stop."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pipeline.config import Sampling
from pipeline.engine.constraint import Constraint, ConstraintCompiler
from pipeline.engine.sampler import Sampler
from pipeline.errors import BadInput, FailureCode
from pipeline.model.tokenizer import Detokenizer, Tokenizer

FinishReason = Literal["stop", "length", "constraint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of an open stream: the tokens that follow the video, and how to answer.

    A follow-up is a question whose ids hold the earlier turns too, with `Answer.token_ids` as they
    were written: the stream forgets everything after its video between questions.
    """

    ids: tuple[int, ...]
    sampling: Sampling = Sampling()
    constraint: Constraint | None = None
    keep_control: bool = False  # show control tokens in the text, as boxes need

    def __post_init__(self) -> None:
        if not self.ids:
            raise BadInput(FailureCode.BAD_PROMPT, "a question needs at least one token")

    @property
    def max_tokens(self) -> int:
        """Tokens the cache may have to hold for it."""
        return len(self.ids) + self.sampling.max_new_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A finished answer.

    finish_reason: "stop" for an end token or a stop text, "constraint" where the constraint allowed
    nothing more, "length" for an answer cut off. token_ids: without the end token.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason


class Writer:
    """An answer in progress: takes one token at a time and gives the text that is certain by then.

    A stop text never shows: what may turn out to be the start of one is held back.
    """

    def __init__(
        self,
        question: Question,
        *,
        sampler: Sampler,
        detokenizer: Detokenizer,
        eos_ids: Collection[int],
    ) -> None:
        self.question = question
        self.sampler = sampler
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._detokenizer = detokenizer
        self._eos_ids = eos_ids
        self._text = ""
        self._num_shown = 0

    @property
    def answer(self) -> Answer:
        """The answer, once there is a finish reason."""
        if self.finish_reason is None:
            raise ValueError("the answer is not finished")
        return Answer(
            text=self._text, token_ids=tuple(self.token_ids), finish_reason=self.finish_reason
        )

    def accept(self, token: int) -> str:
        """Take the next token; returns the text it made certain."""
        if token in self._eos_ids:
            return self._finish("stop")
        self.token_ids.append(token)
        self._text += self._detokenizer.push(token)
        if self._cut_at_stop():
            return self._show(len(self._text), "stop")
        if self.sampler.is_complete:
            return self._finish("constraint")
        if len(self.token_ids) == self.question.sampling.max_new_tokens:
            return self._finish("length")
        return self._show(len(self._text) - self._num_held_back())

    def _finish(self, reason: FinishReason) -> str:
        self._text += self._detokenizer.finish()
        return self._show(len(self._text), "stop" if self._cut_at_stop() else reason)

    def _show(self, stop: int, reason: FinishReason | None = None) -> str:
        self.finish_reason = reason
        piece = self._text[self._num_shown : stop]
        self._num_shown = max(stop, self._num_shown)
        return piece

    def _cut_at_stop(self) -> bool:
        """Cut the text before the first stop text in it, if any."""
        found = [self._text.find(stop, self._num_shown) for stop in self.question.sampling.stop]
        places = [place for place in found if place >= 0]
        if places:
            self._text = self._text[: min(places)]
        return bool(places)

    def _num_held_back(self) -> int:
        """Length of the longest end of the text that is the start of a stop text."""
        tail = self._text[self._num_shown :]
        return max(
            (
                size
                for stop in self.question.sampling.stop
                for size in range(1, min(len(stop), len(tail) + 1))
                if tail.endswith(stop[:size])
            ),
            default=0,
        )


class Writers:
    """Starts answers: everything a writer needs that is the same for all questions."""

    def __init__(self, tokenizer: Tokenizer, *, eos_ids: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._eos_ids = frozenset(eos_ids)

    def start(self, question: Question, *, prompt_ids: Sequence[int]) -> Writer:
        """A writer at the start of its answer; BadInput(BAD_PROMPT) for an unusable constraint.

        prompt_ids: the tokens before the question's, which the repetition penalty counts too.
        """
        constraint = question.constraint
        sampler = Sampler(
            question.sampling,
            prompt_ids=[*prompt_ids, *question.ids],
            matcher=None if constraint is None else self._constraints.start(constraint),
        )
        detokenizer = Detokenizer(self._tokenizer, keep_control=question.keep_control)
        return Writer(question, sampler=sampler, detokenizer=detokenizer, eos_ids=self._eos_ids)

    @cached_property
    def _constraints(self) -> ConstraintCompiler:
        return ConstraintCompiler(self._tokenizer.json, eos_ids=sorted(self._eos_ids))
