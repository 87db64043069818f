"""A job that is told to stop, and told again."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from jobs.batch.stop import Stop
from jobs.exits import LAST_S, run_until_stopped

# A job whose thread waits for a store that will never answer.
STUCK = """
import asyncio, threading
from jobs.batch.stop import Stop

async def job():
    print("running", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)

Stop(grace_s=GRACE_S, told=lambda seconds: print("told", flush=True)).run(job())
"""


# One that gives something back.
WAITING = """
import asyncio
from jobs.batch.stop import Stop
from jobs.exits import heed_signals

async def job():
    print("running", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("given back", flush=True)

heed_signals()
Stop(grace_s=GRACE_S, told=lambda seconds: print("told", flush=True)).run(job())
"""


def start_stuck(grace_s: float, script: str = STUCK) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script.replace("GRACE_S", str(grace_s))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_ends_with_its_grace_even_while_a_thread_of_it_is_stuck(number):
    process = start_stuck(grace_s=0.5)
    assert process.stdout.readline() == "running\n"
    process.send_signal(number)
    assert process.stdout.readline() == "told\n"
    assert process.wait(timeout=10 * LAST_S) in (128 + number, -number)


@pytest.mark.parametrize(
    "run", [Stop(grace_s=1000, told=lambda seconds: None).run, run_until_stopped]
)
def test_a_signal_wakes_a_loop_that_was_about_to_wait(run):
    """No handler runs in a thread that begins to wait just as the signal comes."""
    is_woken = []

    async def job():
        wakes = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakes)
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        wait = loop._selector.select

        def select(timeout):
            events = wait(timeout)
            if events:
                woken.set()
            return events

        loop._selector.select = select
        os.write(wakes, bytes([signal.SIGTERM]))  # as the system does, whoever is waiting
        async with asyncio.timeout(30):
            await woken.wait()
        is_woken.append(True)

    run(job())
    assert is_woken
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize(("grace_s", "parts_s"), [(0, 0), (1, 0), (30, 30 - LAST_S)])
def test_what_is_given_back_belongs_to_the_grace(grace_s, parts_s, monkeypatch):
    """Whoever sends SIGTERM, and SIGKILL when the grace is over, cuts nothing short."""
    ends_s, told_s = [], []
    monkeypatch.setattr("jobs.batch.stop.end_within", lambda seconds, code: ends_s.append(seconds))

    async def job():
        signal.raise_signal(signal.SIGTERM)
        while not told_s:
            await asyncio.sleep(0)

    Stop(grace_s=grace_s, told=told_s.append).run(job())
    assert told_s == [parts_s]
    assert ends_s == [max(grace_s, LAST_S)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_job_even_while_a_thread_of_it_is_stuck(number):
    process = start_stuck(grace_s=1000)
    for word in ("running", "told"):
        assert process.stdout.readline() == f"{word}\n"
        asked_s = time.monotonic()
        process.send_signal(number)
    code = process.wait(timeout=10 * LAST_S)
    assert code in (128 + number, -number)
    assert time.monotonic() - asked_s < 5 * LAST_S


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_drops_what_is_under_way_as_the_end_of_the_grace_does(first, second):
    process = start_stuck(grace_s=1000, script=WAITING)
    for word, number in (("running", first), ("told", second)):
        assert process.stdout.readline() == f"{word}\n"
        process.send_signal(number)
    said, _ = process.communicate(timeout=10 * LAST_S)
    assert said == "given back\n"
    assert process.returncode in (128 + first, -first)
