"""One open stream on vLLM: the session of its media, and the questions on it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from actors.vllm.answerer import Answerer
from actors.vllm.backend import EngineLost
from actors.vllm.feed import Feed
from actors.vllm.media_session import MediaSession
from actors.vllm.room import Room
from pipeline.engine.deltas import Deltas
from pipeline.engine.question import Completion, Question, TextDelta
from pipeline.errors import BadInput, FailureCode, StreamError, Transient
from pipeline.span import Span
from pipeline.types import TokenChunk


class FedStream:
    """Holds num_blocks of vLLM's cache, of which questions share what its media do not fill.

    block: tokens in one. max_tokens, max_position: of a question with its answer.
    """

    def __init__(
        self,
        name: str,
        feed: Feed,
        session: MediaSession,
        answerer: Answerer,
        *,
        num_blocks: int,
        block: int,
        max_tokens: int,
        max_position: int,
        on_lost: Callable[[EngineLost], None],
    ) -> None:
        self.num_blocks = num_blocks
        self._name = name
        self._feed = feed
        self._session = session
        self._answerer = answerer
        self._block = block
        self._tail = feed.num_tokens % block
        self._room = Room(num_blocks - feed.num_tokens // block)
        self._max_tokens = max_tokens
        self._max_position = max_position
        self._on_lost = on_lost
        self._num_asked = 0
        self._askers: set[asyncio.Task[None]] = set()

    @property
    def num_waiting(self) -> int:
        return self._session.num_waiting + self._room.num_waiting

    async def prefill(self, chunk: TokenChunk, number: int) -> Span:
        return await self._session.prefill(chunk, number)

    async def ask(self, questions: Sequence[Question]) -> AsyncGenerator[TextDelta, None]:
        """Answer all questions at once, as Engine.ask does."""
        if self._session.failure is not None:
            raise self._session.failure
        deltas = Deltas(len(questions))
        askers = [
            asyncio.create_task(self._answer(index, question, deltas))
            for index, question in enumerate(questions)
        ]
        self._askers.update(askers)
        try:
            async for delta in deltas:
                yield delta
        finally:
            self._askers.difference_update(askers)
            await _cancel(askers)

    async def close(self) -> None:
        """Free what it holds of vLLM; who waits gets Transient."""
        await self._session.close()
        await _cancel([*self._askers])

    async def _answer(self, index: int, question: Question, deltas: Deltas) -> None:
        """Put the question's deltas, or the error that ends its whole call."""
        try:
            async for text, completion in self._words(question):
                deltas.put(TextDelta(index, text, completion))
        except asyncio.CancelledError:
            deltas.fail(index, self._session.failure or Transient("the question was given up"))
            raise
        except EngineLost as error:
            deltas.fail(index, error)
            self._on_lost(error)
        except Exception as error:  # noqa: BLE001 - it is told to whoever asked
            is_told = isinstance(error, BadInput | StreamError | Transient)
            deltas.fail(index, error if is_told else Transient(f"the engine failed: {error!r}"))

    async def _words(
        self, question: Question
    ) -> AsyncGenerator[tuple[str, Completion | None], None]:
        self._require_possible(question)
        matcher = await self._answerer.matcher(question.constraint)
        async with self._room.taken(-(-(self._tail + question.max_tokens) // self._block)):
            prompt = await asyncio.to_thread(self._feed.whole, question.ids)
            self._num_asked += 1
            name = f"{self._name}?{self._num_asked}"
            async with aclosing(self._answerer.words(name, prompt, question, matcher)) as words:
                async for text, completion in words:
                    yield text, completion

    def _require_possible(self, question: Question) -> None:
        if self._session.failure is not None:
            raise self._session.failure
        if missing := self._session.num_missing:
            raise StreamError(f"a question came before the last {missing} chunks")
        needed = question.max_tokens
        if needed > self._max_tokens:
            reason = f"question and answer need {needed} tokens; limit {self._max_tokens}"
            raise BadInput(FailureCode.PROMPT_TOO_LONG, reason)
        if (last := self._feed.next_position + needed) > self._max_position:
            reason = f"the answer could reach position {last}; limit {self._max_position}"
            raise BadInput(FailureCode.PROMPT_TOO_LONG, reason)


async def _cancel(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
