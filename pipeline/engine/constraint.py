"""Answers held to a list of choices or a JSON schema, token by token, through llguidance.

Covered: malformed or unsupported schemas, schemas too large, too deep or too hard to compile,
remote references (never fetched), a grammar that turns out too hard while generating. All of
them end the request that brought them with BAD_PROMPT, and nothing else.
Not covered: an answer cut by max_new_tokens is not complete; whoever parses it has to say so.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from pipeline.errors import BadInput, ConfigError, FailureCode
from pipeline.settings import shown

if TYPE_CHECKING:  # see pipeline/types.py
    from torch import Tensor

MAX_CHOICES = 1_000
MAX_CHARACTERS = 65_536  # of a schema's text, or of all choices together
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,  # about 20 ms
    step_lexer_fuel=200_000,  # about 15 ms
    step_max_items=50_000,
    max_lexer_states=50_000,  # 1-2 kB each
    max_grammar_size=100_000,
    verbose_errors=False,
)


@dataclass(frozen=True, slots=True)
class Choices:
    """The answer is one of these texts."""

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.texts or not all(self.texts) or len(self.texts) > MAX_CHOICES:
            empty = [number for number, text in enumerate(self.texts, 1) if not text]
            which = f", number {empty[0]} of them empty" if empty else ""
            got = f"{len(self.texts)}{which}"
            raise _refused(f"choices must be 1 to {MAX_CHOICES} non-empty texts, got {got}")
        if (num_characters := sum(map(len, self.texts))) > MAX_CHARACTERS:
            raise _refused(
                f"choices of {num_characters} characters together; limit {MAX_CHARACTERS}"
            )

    @property
    def lark(self) -> str:
        # An enum of JSON strings would demand quotes; Lark's string escapes are those of JSON.
        texts = " | ".join(json.dumps(text, ensure_ascii=False) for text in self.texts)
        return f"start: {texts}"

    @property
    def grammar(self) -> str:
        return str(LLMatcher.grammar_from_lark(self.lark))


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is a JSON text that is valid under this schema, itself given as JSON text."""

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > MAX_CHARACTERS:
            raise _refused(f"a schema of {len(self.text)} characters; limit {MAX_CHARACTERS}")
        try:
            schema = json.loads(self.text)
        except RecursionError:
            raise _refused("a schema nested too deep") from None
        except ValueError as error:
            raise _refused(f"a schema that is not JSON: {error}") from None
        if not isinstance(schema, dict):
            raise _refused(f"a schema must be a JSON object, got {shown(schema)}")

    @property
    def grammar(self) -> str:
        # Without free whitespace: a small model can write blanks until its tokens run out.
        return str(
            LLMatcher.grammar_from_json_schema(self.text, overrides={"whitespace_flexible": False})
        )


Constraint = Choices | JsonSchema


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())

    def restrict(self, scores: "Tensor") -> "Tensor":
        """A copy of scores (V) in which every token the grammar forbids is minus infinity."""
        import torch  # noqa: PLC0415 - whoever has scores has loaded it

        bias = self._matcher.compute_logit_bias()  # one byte per token, 0 is forbidden
        self._check()
        is_allowed = torch.frombuffer(bytearray(bias), dtype=torch.bool)[: scores.numel()]
        restricted = torch.full_like(scores, float("-inf"))
        known = restricted[: is_allowed.numel()]  # the model's vocabulary may be padded
        known.copy_(scores[: is_allowed.numel()].where(is_allowed.to(scores.device), known))
        return restricted

    def take(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refused("a constraint too hard to follow; simplify its patterns")


class ConstraintCompiler:
    """Turns constraints into matchers for one tokenizer.

    tokenizer_json: the text of tokenizer.json. eos_ids: tokens that may end an answer.
    """

    def __init__(self, tokenizer_json: str, *, eos_ids: Sequence[int]) -> None:
        try:
            self._tokenizer = LLTokenizer(tokenizer_json, eos_token=list(eos_ids))
        except ValueError as error:
            raise ConfigError(f"this tokenizer can't be constrained: {error}") from None

    def start(self, constraint: Constraint) -> Matcher:
        """A matcher at the start of an answer; BadInput(BAD_PROMPT) if there can be none."""
        try:
            matcher = LLMatcher(self._tokenizer, constraint.grammar, log_level=0, limits=LIMITS)
        except ValueError as error:
            raise _unreadable(constraint, error) from None
        if matcher.is_error():
            raise _unusable(constraint, matcher.get_error())
        return Matcher(matcher)


def require_usable(constraint: Constraint) -> None:
    """BadInput(BAD_PROMPT) for what no answer can be held to, whatever the tokenizer."""
    try:
        is_fault, said = LLMatcher.validate_grammar_with_warnings(constraint.grammar, limits=LIMITS)
    except ValueError as error:
        raise _unreadable(constraint, error) from None
    if is_fault:
        raise _unusable(constraint, " ".join(said))


def _unreadable(constraint: Constraint, error: ValueError) -> BadInput:
    return _refused(f"{_name(constraint)} that can't be read: {_one_line(str(error))}")


def _unusable(constraint: Constraint, fault: str) -> BadInput:
    return _refused(f"{_name(constraint)} that can't be used: {_one_line(fault)}")


def _name(constraint: Constraint) -> str:
    return "choices" if isinstance(constraint, Choices) else "a schema"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _refused(detail: str) -> BadInput:
    return BadInput(FailureCode.BAD_PROMPT, detail)
