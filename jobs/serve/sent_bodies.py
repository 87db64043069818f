"""Bodies of chats that are being answered, or were a moment ago: sent again they get that answer.

Clients send again what they think is lost; nothing is done twice for that.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from jobs.serve.answer_run import AnswerRun
from jobs.serve.left_stream import BodyKey

KEEP_ANSWER_S = 120.0


class SentBodies:
    """On one event loop."""

    def __init__(self) -> None:
        self._begun: dict[BodyKey, asyncio.Future[AnswerRun]] = {}

    def is_known(self, owner: str, body_id: str) -> bool:
        """Whether its answer is being written, or was a moment ago."""
        beginning = self._begun.get((owner, body_id))
        return beginning is not None and not _has_failed(beginning)

    @property
    def bodies(self) -> Collection[BodyKey]:
        return self._begun.keys()

    async def once(
        self, owner: str, body_id: str, begin: Callable[[], Coroutine[Any, Any, AnswerRun]]
    ) -> AnswerRun:
        """The answer that is begun for this body, unless it is known: then that one."""
        body = owner, body_id
        beginning = self._begun.get(body)
        if beginning is None or _has_failed(beginning):
            beginning = self._begun[body] = asyncio.create_task(begin())
            beginning.add_done_callback(lambda _: self._drop_refused(body))
        return await asyncio.shield(beginning)

    def take(self, answering: AnswerRun) -> None:
        """One that an earlier desk has begun, unless that is too long ago."""
        if answering.entry.body_id is None:
            return
        known: asyncio.Future[AnswerRun] = asyncio.get_running_loop().create_future()
        known.set_result(answering)
        if not _has_failed(known) and not _is_old(known):
            self._begun.setdefault((answering.stream.owner, answering.entry.body_id), known)

    def forget(self, answering: AnswerRun) -> None:
        """It cannot be looked up any more."""
        body = answering.stream.owner, answering.entry.body_id or ""
        beginning = self._begun.get(body)
        if beginning is None or not beginning.done() or _is_lost(beginning):
            return
        if beginning.result() is answering:
            del self._begun[body]

    async def sweep(self) -> None:
        """Drop what ended a while ago."""
        for body, beginning in list(self._begun.items()):
            if _has_failed(beginning) or _is_old(beginning):
                del self._begun[body]

    def _drop_refused(self, body: BodyKey) -> None:
        """What came to no answer; its error holds all that it went through."""
        beginning = self._begun.get(body)
        if beginning is not None and beginning.done() and _is_lost(beginning):
            del self._begun[body]


def _is_lost(beginning: asyncio.Future[AnswerRun]) -> bool:
    return beginning.cancelled() or beginning.exception() is not None


def _has_failed(beginning: asyncio.Future[AnswerRun]) -> bool:
    return beginning.done() and (_is_lost(beginning) or beginning.result().status == "failed")


def _is_old(beginning: asyncio.Future[AnswerRun]) -> bool:
    if not beginning.done():
        return False
    answering = beginning.result()
    return answering.status != "running" and answering.ended_at + KEEP_ANSWER_S <= time.time()
