"""What questions that were asked together say, on its way to whoever asked."""

import asyncio

from pipeline.engine.question import Completion, TextDelta
from pipeline.errors import BadInput


class Deltas:
    """Put by whoever writes the answers, in any order; taken until all of them have ended."""

    def __init__(self, num_questions: int) -> None:
        self._num_left = num_questions
        self._said: asyncio.Queue[TextDelta | BaseException] = asyncio.Queue()

    def put(self, delta: TextDelta) -> None:
        self._said.put_nowait(delta)

    def fail(self, question_index: int, error: BaseException) -> None:
        """Of BadInput a question's own answer ends; any other error ends them all."""
        if isinstance(error, BadInput):
            self.put(TextDelta(question_index, "", Completion(error=error)))
        else:
            self._said.put_nowait(error)

    def __aiter__(self) -> "Deltas":
        return self

    async def __anext__(self) -> TextDelta:
        """The next one when it has come; raises the error that ended them all."""
        if not self._num_left:
            raise StopAsyncIteration
        delta = await self._said.get()
        if isinstance(delta, BaseException):
            raise delta
        self._num_left -= delta.completion is not None
        return delta
