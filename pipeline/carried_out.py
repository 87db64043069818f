"""Work that goes on to its end though whoever waits for it is cancelled: what gives things back."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_log = logging.getLogger("vidray")
_under_way: set[asyncio.Task[Any]] = set()  # an event loop alone would let go of them


async def carried_out(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of the work, which is done in a task of its own.

    A caller that is cancelled is so when the work has ended, and one that is cancelled again at
    once; the work goes on, and what it raises then is logged.
    """
    task = asyncio.create_task(work)
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
