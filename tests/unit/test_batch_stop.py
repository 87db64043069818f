"""A job that is told to stop, and told again."""

import signal
import subprocess
import sys
import time

import pytest

from jobs.batch.stop import LAST_S

# A job whose thread waits for a store that will never answer.
STUCK = """
import asyncio, threading
from jobs.batch.stop import Stop

async def job():
    print("running", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)

Stop(grace_s=1000, told=lambda: print("told", flush=True)).run(job())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_job_even_while_a_thread_of_it_is_stuck(number):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for word in ("running", "told"):
        assert process.stdout.readline() == f"{word}\n"
        asked_s = time.monotonic()
        process.send_signal(number)
    code = process.wait(timeout=10 * LAST_S)
    assert code in (128 + number, -number)
    assert time.monotonic() - asked_s < 5 * LAST_S
