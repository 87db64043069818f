"""Stopping a job: what SIGTERM and Ctrl-C mean while its parts are being made."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import FrameType
from typing import Any

from pipeline.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LAST_S = 5.0  # after the second signal: a thread that waits for a dead store ends with the process


class Stop:
    """At the first signal parts under way get a grace; the second ends the process within LAST_S.

    grace_s: seconds. told: called when the grace begins.
    """

    def __init__(self, *, grace_s: float, told: Callable[[], None]) -> None:
        self._grace_s = grace_s
        self._told = told
        self._heard: signal.Signals | None = None

    @property
    def is_asked(self) -> bool:
        """No new part may be begun. Any thread may look."""
        return self._heard is not None

    def run(self, job: Coroutine[Any, Any, object]) -> None:
        """asyncio.run; a job that ends unfinished ends as the signal would have ended it."""
        try:
            asyncio.run(self._heeding(job))
        except Stopped:
            if self._heard is None:
                raise
            signal.raise_signal(self._heard)

    async def _heeding(self, job: Coroutine[Any, Any, object]) -> None:
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in SIGNALS}
        # A shell's background job is started to ignore Ctrl-C.
        heeded = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]

        def hear(number: int, frame: FrameType | None) -> None:
            for each in heeded:
                signal.signal(each, end)
            self._heard = signal.Signals(number)
            loop.call_soon_threadsafe(begin)

        def end(number: int, frame: FrameType | None) -> None:
            restore()
            last = threading.Timer(LAST_S, os._exit, (128 + number,))
            last.daemon = True
            last.start()
            signal.raise_signal(number)

        def begin() -> None:
            self._told()
            with suppress(RuntimeError):  # the job has ended in this very moment
                grace.reschedule(loop.time() + self._grace_s)

        def restore() -> None:
            for number in heeded:
                signal.signal(number, before[number])

        try:
            async with asyncio.timeout(None) as grace:
                for number in heeded:
                    signal.signal(number, hear)
                await job
        except TimeoutError:
            if not grace.expired():
                raise
            raise Stopped(f"parts under way were not finished within {self._grace_s:g} s") from None
        finally:
            restore()
