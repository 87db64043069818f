"""What is the same for all answers that one language model writes."""

from collections.abc import Collection, Sequence
from functools import cached_property

from pipeline.engine.constraint import Constraint, ConstraintCompiler, Matcher
from pipeline.engine.question import Question
from pipeline.engine.sampler import Sampler
from pipeline.errors import BadInput, ConfigError, FailureCode
from pipeline.model.language import LanguageModel
from pipeline.model.tokenizer import Tokenizer


class Writing:
    """A language model, its tokenizer, and the tokens that end an answer.

    eos_ids: beside <|im_end|>, the end of a turn in every chat of the family; fine-tunes' files
    often name another token alone, and would go on with a turn of the user.
    """

    def __init__(
        self, language: LanguageModel, tokenizer: Tokenizer, *, eos_ids: Collection[int]
    ) -> None:
        self.language = language
        self.tokenizer = tokenizer
        self.eos_ids = frozenset(eos_ids) | {tokenizer.ids.im_end}

    def sampler(self, question: Question, *, prompt_ids: Sequence[int]) -> Sampler:
        """Chooses this question's tokens; BadInput(BAD_PROMPT) for an unusable constraint.

        prompt_ids: the tokens before the question's, which the repetition penalty counts too.
        """
        return Sampler(
            question.sampling,
            prompt_ids=[*prompt_ids, *question.ids],
            matcher=self._matcher(question.constraint),
        )

    def _matcher(self, constraint: Constraint | None) -> Matcher | None:
        if constraint is None:
            return None
        try:
            return self._constraints.start(constraint)
        except ConfigError as error:  # nobody else's answer hangs on it
            raise BadInput(FailureCode.BAD_PROMPT, str(error)) from None

    @cached_property
    def _constraints(self) -> ConstraintCompiler:
        return ConstraintCompiler(self.tokenizer.json, eos_ids=sorted(self.eos_ids))
