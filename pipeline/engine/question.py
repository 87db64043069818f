"""What goes into an engine and what comes out: a question as ids, text as it grows, its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.config import Sampling
from pipeline.engine.constraint import Constraint
from pipeline.errors import BadInput, FailureCode

FinishReason = Literal["stop", "length", "constraint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of an open stream: the tokens that follow the video, and how to answer.

    A follow-up is a question whose ids hold the earlier turns too, with `Completion.token_ids` as
    they were written: the stream forgets everything after its video between questions.
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
class Completion:
    """How a question ended: with an answer, or with the error that is its own fault.

    finish_reason: "stop" for an end token or a stop text, "constraint" where the constraint allowed
    nothing more, "length" for an answer cut off; None with an error. token_ids: without the end
    token.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    error: BadInput | None = None

    def __post_init__(self) -> None:
        if (self.finish_reason is None) != (self.error is not None):
            raise ValueError(f"a completion ends well or badly, got {self}")

    @property
    def code(self) -> FailureCode | None:
        """Of the error."""
        return None if self.error is None else self.error.code


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Some more text of an answer; `completion` comes with the last one of each question."""

    question_index: int
    text: str
    completion: Completion | None = None


def joined(deltas: Sequence[TextDelta]) -> list[TextDelta]:
    """The same texts and completions, one delta for each question."""
    whole: dict[int, TextDelta] = {}
    for delta in deltas:
        index = delta.question_index
        text = whole[index].text + delta.text if index in whole else delta.text
        whole[index] = TextDelta(index, text, delta.completion)
    return list(whole.values())
