"""What waits in a thread holds up neither its caller's end nor that of the process."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.threads import in_thread


def test_it_gives_what_the_call_gives() -> None:
    def fail() -> None:
        raise KeyError("no")

    assert asyncio.run(in_thread(divmod, 7, 2)) == (3, 1)
    with pytest.raises(KeyError, match="no"):
        asyncio.run(in_thread(fail))


def test_who_is_cancelled_waits_for_no_thread() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        may_end.wait(60)

    async def give_up() -> None:
        waiting = asyncio.ensure_future(in_thread(wait))
        await in_thread(begun.wait, 30)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(give_up())
    assert not may_end.is_set()
    may_end.set()  # its loop is closed by now


ABANDONED = """
import asyncio, threading
from pipeline.threads import in_thread

async def job():
    waiting = asyncio.ensure_future(in_thread(threading.Event().wait))
    await asyncio.sleep(0)
    waiting.cancel()

asyncio.run(job())
print("over")
"""


def test_a_process_ends_while_a_thread_of_it_still_waits() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ABANDONED], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "over\n"
    assert done.stderr == ""


AT_WORK = """
import asyncio, threading
import torch
from jobs.exits import leave
from pipeline.threads import in_thread

begun = threading.Event()

def compute():
    matrix = torch.randn(300, 300)
    begun.set()
    while True:
        torch.nn.functional.linear(matrix, matrix)[1:].unbind()

async def job():
    working = asyncio.ensure_future(in_thread(compute))
    await in_thread(begun.wait)
    working.cancel()

asyncio.run(job())
print("said", end="")
leave(143)
"""


def test_an_exit_code_is_kept_while_a_thread_of_the_process_is_in_native_code() -> None:
    """Taking the interpreter down under it ends in SIGSEGV or SIGABRT."""
    done = subprocess.run(
        [sys.executable, "-c", AT_WORK], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (143, "said"), done.stderr


FULL = """
import asyncio, threading
from jobs.exits import leave
from pipeline.threads import in_thread

async def job():
    waiting = asyncio.ensure_future(in_thread(threading.Event().wait))
    await asyncio.sleep(0)
    waiting.cancel()

asyncio.run(job())
print("results")
leave(0)
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_results_that_could_not_be_written_are_no_success_beside_a_thread_at_work() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", FULL],
            stdout=full,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
