"""Work that goes on to its end though whoever waits for it is cancelled: what gives things back."""

import asyncio
import inspect
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_log = logging.getLogger("vidray")
_under_way: set[asyncio.Task[Any]] = set()  # an event loop alone would let go of them


class Begun(asyncio.Task[Result]):
    """A task that takes its first step though it is cancelled before that, as by an event loop
    that ends: what is not begun would be forgotten.
    """

    def __init__(self, work: Coroutine[Any, Any, Result]) -> None:
        super().__init__(work)
        self._work = work

    def cancel(self, msg: Any | None = None) -> bool:
        if inspect.getcoroutinestate(self._work) != inspect.CORO_CREATED:
            return super().cancel(msg)
        self.get_loop().call_soon(self.cancel, msg)
        return True


async def carried_out(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of the work, which is done in a task of its own.

    A caller that is cancelled is so when the work has ended, and one that is cancelled again at
    once; the work goes on, and what it raises then is logged.
    """
    task = Begun(work)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_tell)
        await asyncio.wait({task})
        raise


def _tell(task: "asyncio.Task[Any]") -> None:
    """Nobody else hears of it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.warning("it could not be given back: %r", error)
