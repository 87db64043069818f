"""Waiting in a thread for what may never answer."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakSet

P = ParamSpec("P")
T = TypeVar("T")
_workers: "WeakSet[threading.Thread]" = WeakSet()


def is_any_at_work() -> bool:
    """Whether a thread that nobody waits for is still in its call."""
    return any(worker.is_alive() for worker in set(_workers))


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like asyncio.to_thread, but nothing waits for the thread once its caller is cancelled.

    Neither the loop nor the process does: a store that is dead or slow cannot hold up their end.
    Each call has a thread of its own, so that those who wait hold up nobody else either.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def deliver(outcome: Callable[[], None]) -> None:
        if not answer.cancelled():
            outcome()

    def work() -> None:
        outcome: Callable[[], None]
        try:
            outcome = partial(answer.set_result, call(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
            outcome = partial(answer.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(deliver, outcome)

    name = getattr(call, "__name__", "call")
    worker = threading.Thread(target=copy_context().run, args=(work,), daemon=True, name=name)
    _workers.add(worker)
    worker.start()
    return await answer
