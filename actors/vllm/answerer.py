"""What vLLM chooses, as text that ends where our own engine's answers end."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing

from actors.vllm.backend import Backend
from actors.vllm.feed import Prompt
from pipeline.engine.answer import AnswerText
from pipeline.engine.constraint import Constraint, ConstraintCompiler, Matcher
from pipeline.engine.question import Completion, Question
from pipeline.errors import BadInput, ConfigError, FailureCode, Transient
from pipeline.model.tokenizer import Tokenizer


class Answerer:
    """Answers questions of any stream. spent: is told of the time since when, and of the tokens."""

    def __init__(
        self,
        backend: Backend,
        *,
        tokenizer: Tokenizer,
        eos_ids: Collection[int],
        spent: Callable[[float, int], object],
    ) -> None:
        self._backend = backend
        self._tokenizer = tokenizer
        self._eos_ids = frozenset(eos_ids) | {tokenizer.ids.im_end}
        self._spent = spent
        self._compiler: ConstraintCompiler | None = None

    async def words(
        self, name: str, prompt: Prompt, question: Question, matcher: Matcher | None
    ) -> AsyncGenerator[tuple[str, Completion | None], None]:
        """Text as it becomes certain, the last one with its completion. matcher: of `matcher`."""
        answer = AnswerText(question, self._tokenizer, eos_ids=self._eos_ids)
        started_s = time.monotonic()
        async with aclosing(
            self._backend.answer(name, prompt, question, self._eos_ids)
        ) as choosing:
            async for chosen in choosing:
                for token in chosen.tokens:
                    if not chosen.is_finite:
                        reason = "the model's scores contain NaN or infinity"
                        raise BadInput(FailureCode.NONFINITE_LOGITS, reason)
                    if matcher is not None:
                        matcher.take(token)
                    is_complete = matcher is not None and matcher.is_complete
                    text = answer.accept(token, is_constraint_complete=is_complete)
                    if text or answer.completion:
                        yield text, answer.completion
                    if answer.completion:
                        break
                self._spent(started_s, len(chosen.tokens))
                started_s = time.monotonic()
                if answer.completion:
                    return
        raise Transient("the engine ended an answer before its end")

    async def matcher(self, constraint: Constraint | None) -> Matcher | None:
        """Where an answer ends that nothing may follow; BadInput(BAD_PROMPT) if unusable.

        vLLM is held to no limits, so what our own engine would refuse is not sent there.
        """
        return None if constraint is None else await asyncio.to_thread(self._compiled, constraint)

    def _compiled(self, constraint: Constraint) -> Matcher:
        try:
            if self._compiler is None:
                self._compiler = ConstraintCompiler(
                    self._tokenizer.json, eos_ids=sorted(self._eos_ids)
                )
            return self._compiler.start(constraint)
        except ConfigError as error:
            raise BadInput(FailureCode.BAD_PROMPT, str(error)) from None
