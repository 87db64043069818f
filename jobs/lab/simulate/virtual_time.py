"""An event loop whose clock moves only when everybody waits: hours of a fleet pass in seconds."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any


class _Selector(selectors.DefaultSelector):
    """Instead of sleeping, lets the clock jump to where the sleep would have ended."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everybody waits and nobody will wake them")
        self.now_s += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Executors run at once, one call at a time each, and take the seconds that calls `spend`.

    An executor with a method `occupy` is asked to let them pass: it may have to wait for a core.
    """

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)
        self._spent_s = 0.0
        self._locks: dict[int, asyncio.Lock] = {}

    def time(self) -> float:
        return self._clock.now_s

    def spend(self, seconds: float) -> None:
        """Called by work in an executor: it takes that much longer."""
        self._spent_s += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        return self.create_task(self._run(executor, func, *args))

    async def _run(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> Any:
        async with self._locks.setdefault(id(executor), asyncio.Lock()):
            self._spent_s = 0.0
            result = func(*args)
            seconds, self._spent_s = self._spent_s, 0.0
            await getattr(executor, "occupy", asyncio.sleep)(seconds)
            return result


def run_virtually(work: Coroutine[Any, Any, Any], loop: VirtualLoop | None = None) -> Any:
    """Run to the end in a virtual loop; returns the result."""
    with asyncio.Runner(loop_factory=lambda: loop or VirtualLoop()) as runner:
        return runner.run(work)
