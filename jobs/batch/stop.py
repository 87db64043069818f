"""Stopping a job: what SIGTERM and Ctrl-C mean while its parts are being made."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Timer
from types import FrameType
from typing import Any

from jobs.exits import LAST_S, SIGNALS, end_within
from pipeline.errors import Stopped


class Stop:
    """From the first signal on the process has a grace to end in, whatever holds it up.

    The last LAST_S of it are for giving everything back; what is there before is for parts under
    way, which the second signal drops at once. grace_s: LAST_S at least. told: is called when it
    begins, with the seconds that parts have.
    """

    def __init__(self, *, grace_s: float, told: Callable[[float], None]) -> None:
        self._parts_s = max(0.0, grace_s - LAST_S)
        self._told = told
        self._heard: signal.Signals | None = None
        self._last: Timer | None = None

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
            self._last = end_within(self._parts_s + LAST_S, 128 + number)
            loop.call_soon_threadsafe(begin)

        def end(number: int, frame: FrameType | None) -> None:
            restore()
            end_within(LAST_S, 128 + number)
            signal.raise_signal(number)

        def begin() -> None:
            self._told(self._parts_s)
            with suppress(RuntimeError):  # the job has ended in this very moment
                grace.reschedule(loop.time() + self._parts_s)

        def restore() -> None:
            for number in heeded:
                signal.signal(number, before[number])

        try:
            async with asyncio.timeout(None) as grace:
                for number in heeded:
                    signal.signal(number, hear)
                await job
            if self._last is not None:  # finished all the same
                self._last.cancel()
        except TimeoutError:
            if not grace.expired():
                raise
            raise Stopped(f"parts under way were not finished within {self._parts_s:g} s") from None
        finally:
            restore()
