"""How a vidray process ends."""

import asyncio
import atexit
import os
import signal
import socket
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from itertools import count
from types import FrameType
from typing import Any, NoReturn, TypeVar

from pipeline.threads import is_any_at_work

Value = TypeVar("Value")

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # that tell a command to stop
LAST_S = 5.0  # to give everything back in, for a process that was told to end


class Exit(IntEnum):
    """Exit codes of every command; MEANINGS has what people are told of them."""

    OK = 0
    FAILED = 1
    MISUSED = 2
    SOME_FAILED = 3
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = {
    Exit.OK: "all good",
    Exit.FAILED: "failed: a store, a cluster, this machine; or what was looked at is not as it "
    "should be: a job not finished (status, fsck), damage (fsck), a row that differs (replay)",
    Exit.MISUSED: "misused: an option, a setting, a model folder, a place that may not be read or "
    "written",
    Exit.SOME_FAILED: "finished, and some videos, answers or boxes failed: their rows say why",
    Exit.INTERRUPTED: "stopped by Ctrl-C; a batch job goes on when it is run again",
    Exit.TERMINATED: "stopped by SIGTERM, likewise",
}


def end_within(seconds: float, code: int) -> threading.Timer:
    """End the process then, whatever it is waiting for, unless the timer is cancelled."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()
    return timer


def heed_signals() -> None:
    """What a command does first. Ctrl-C is not for a shell's background job, started to ignore it.

    Exit functions run in reverse: after the last of them Python gives signals back to the system,
    where they would end the process by a code of their own.
    """
    atexit.register(hear_no_more)
    signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """A handler of SIGTERM outside of asyncio: by an exception, so that children are ended and the
    terminal is given back, which no second signal disturbs.
    """
    hear_no_more()
    end_within(LAST_S, Exit.TERMINATED)
    sys.exit(Exit.TERMINATED)


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """The same of Ctrl-C."""
    hear_no_more()
    end_within(LAST_S, Exit.INTERRUPTED)
    raise KeyboardInterrupt


def hear_no_more() -> None:
    """The process is told to end already, and will in time: what it gives back is not cut short."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def run_until_stopped(work: Coroutine[Any, Any, Value]) -> Value:
    """asyncio.run for a command: the first SIGTERM or Ctrl-C cancels the work, and LAST_S later the
    process is gone; the next ones change nothing. Outside of the main thread, where signals are not
    heard, asyncio.run alone.

    An exception raised by a handler would come up in whichever task is running at that moment; what
    it holds is not given back then, and asyncio complains of it on stderr.
    """
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    # A shell's background job is started to ignore Ctrl-C.
    heeded = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    heard: list[signal.Signals] = []
    turns = count()  # which no signal can come in the middle of
    running: list[asyncio.Task[Any]] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if next(turns):  # to cancel it again would cut off what it gives back
            return
        heard.append(signal.Signals(number))
        end_within(LAST_S, 128 + number)
        for task in running:
            if not task.get_loop().is_closed():
                task.get_loop().call_soon_threadsafe(task.cancel)

    async def heeding(felt: socket.socket) -> Value:
        asyncio.get_running_loop().add_reader(felt, felt.recv, 64)
        running.extend(asyncio.all_tasks())  # this one
        if heard:
            running[0].cancel()
        return await work

    for number in heeded:
        signal.signal(number, hear)
    try:
        with signals_felt() as felt:
            return asyncio.run(heeding(felt))
    finally:
        if not heard:
            for number in heeded:
                signal.signal(number, before[number])
        if heard:  # whether the work was cut or had just been done
            hear_no_more()
            _end_by(heard[0], before[heard[0]])


@contextmanager
def signals_felt() -> Iterator[socket.socket]:
    """It can be read from when a signal comes: that wakes a loop which was just about to wait, and
    whose thread would run no handler before something else happens.
    """
    felt, told = socket.socketpair()
    with felt, told:
        felt.setblocking(False)
        told.setblocking(False)
        before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        try:
            yield felt
        finally:
            signal.set_wakeup_fd(before)


def _end_by(number: signal.Signals, handler: Any) -> None:
    """As if the signal came now; others have no say in the exit code any more."""
    if callable(handler):
        handler(number, None)
    else:
        signal.signal(number, handler)
        signal.raise_signal(number)


def _end_in_time(number: int, frame: FrameType | None) -> None:
    """Of a process that leaves already."""
    with suppress(RuntimeError):  # from Python 3.12 on exit functions can begin no thread
        end_within(LAST_S, 128 + number)


def leave(code: int) -> NoReturn:
    """sys.exit that no thread can spoil.

    A thread that comes back from C++ (Arrow, torch) while the interpreter is taken down ends the
    process by a signal of its own, and the exit code is lost. So if one is still at work, only
    what has to be given back is. Nor can a signal: all that it could cut off is the giving back.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_in_time)
    if is_any_at_work():
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # a full disk, or nobody who reads it any more
                code = code or Exit.FAILED
        os._exit(code)
    sys.exit(code)
