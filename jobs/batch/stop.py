"""Stopping a job: what SIGTERM and Ctrl-C mean while its parts are being made."""

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from threading import Timer
from types import FrameType
from typing import Any

from jobs.exits import LAST_S, SIGNALS, end_within, signals_felt
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
        """asyncio.run; a job that ends unfinished ends as the first signal would have ended it."""
        with _handlers_kept(), signals_felt() as felt:
            try:
                asyncio.run(self._heeding(job, felt))
                return
            except Stopped:
                if self._heard is None:
                    raise
        signal.raise_signal(self._heard)

    async def _heeding(self, job: Coroutine[Any, Any, object], felt: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(felt, felt.recv, 64)
        turns = count()  # which no signal can come in the middle of

        def hear(number: int, frame: FrameType | None) -> None:
            is_first = next(turns) == 0
            if is_first:
                self._heard = signal.Signals(number)
                self._last = end_within(self._parts_s + LAST_S, 128 + number)
            else:
                end_within(LAST_S, 128 + (self._heard or number))
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(begin if is_first else drop)

        def begin() -> None:
            self._told(self._parts_s)
            if grace.when() is None:
                end_parts(self._parts_s)

        def drop() -> None:
            end_parts(0.0)

        def end_parts(within_s: float) -> None:
            with suppress(RuntimeError):  # the job has ended in this very moment
                grace.reschedule(loop.time() + within_s)

        try:
            async with asyncio.timeout(None) as grace:
                for number in SIGNALS:
                    # A shell's background job is started to ignore Ctrl-C.
                    if signal.getsignal(number) is not signal.SIG_IGN:
                        signal.signal(number, hear)
                await job
            if self._last is not None:  # finished all the same
                self._last.cancel()
        except TimeoutError:
            if not grace.expired():
                raise
            raise Stopped(f"parts under way were not finished within {self._parts_s:g} s") from None


@contextmanager
def _handlers_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
