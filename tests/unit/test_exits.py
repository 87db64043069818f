"""A command that is told to end while it works in asyncio: it ends as if it had been cancelled."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.exits import Exit, run_until_stopped

BEGIN = """
import asyncio, os, signal, sys
from jobs import exits
from jobs.exits import run_until_stopped, terminate

exits.LAST_S = 60.0  # a machine that pauses cuts nothing short
signal.signal(signal.SIGTERM, terminate)

def told():
    os.kill(os.getpid(), int(sys.argv[1]))

async def other(is_told):
    await is_told.wait()
    told()

async def work():
    is_told = asyncio.Event()
    tasks = [asyncio.create_task(other(is_told)), asyncio.create_task(asyncio.Event().wait())]
    try:
        is_told.set()
        await asyncio.gather(*tasks)
    finally:
        print("given back")

async def done():
    told()
    return 7
"""
END = {
    "another task runs": "run_until_stopped(work())",
    "it has just been done": "print(run_until_stopped(done()))",
    "it has not begun": """
run, before = asyncio.run, signal.getsignal(signal.SIGTERM)
def run_told(work):
    told()
    return run(work)
asyncio.run = run_told
run_until_stopped(work())
""",
    "it is over": """
print(run_until_stopped(asyncio.sleep(0, 7)))
told()
""",
}
SAID = {
    "another task runs": "given back\n",
    "it has just been done": "",
    "it has not begun": "given back\n",
    "it is over": "7\n",
}


def run(script: str, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", BEGIN + script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("moment", END)
def test_sigterm_is_quiet_and_gives_back_whichever_moment_it_comes_at(moment: str) -> None:
    told = str(signal.SIGTERM.value)
    assert run(END[moment], told) == (Exit.TERMINATED, SAID[moment], "")


@pytest.mark.parametrize("moment", END)
def test_ctrl_c_gives_back_whichever_moment_it_comes_at(moment: str) -> None:
    code, said, trouble = run(END[moment], str(signal.SIGINT.value))
    assert (code, said) == (-signal.SIGINT, SAID[moment])
    assert trouble.endswith("KeyboardInterrupt\n")  # which the command line makes a line of
    assert "Task" not in trouble


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_what_is_given_back_is_not_cut_short_by_a_second_signal(
    first: signal.Signals, second: signal.Signals
) -> None:
    script = """
def told_again():
    os.kill(os.getpid(), int(sys.argv[2]))

async def slow():
    try:
        told()
        await asyncio.Event().wait()
    finally:
        told_again()
        for _ in range(3):
            await asyncio.sleep(0)
        print("given back")
try:
    run_until_stopped(slow())
finally:
    told_again()
    print("all of it")
"""
    code, said, trouble = run(script, str(first.value), str(second.value))
    expected = Exit.TERMINATED if first == signal.SIGTERM else -first
    assert (code, said) == (expected, "given back\nall of it\n")
    assert "SystemExit" not in trouble


@pytest.mark.parametrize("line", range(5))
def test_a_second_signal_in_the_middle_of_the_first_ones_handler_loses_neither(line: int) -> None:
    script = """
from itertools import count
lines = count()

def look(frame, event, argument):
    if frame.f_code.co_name != "hear":
        return None
    if event == "line" and next(lines) == int(sys.argv[2]):
        told()
    return look

sys.settrace(look)
run_until_stopped(work())
"""
    code, said, trouble = run(script, str(signal.SIGTERM.value), str(line))
    assert (code, said, trouble) == (Exit.TERMINATED, "given back\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_process_leaves_changes_neither_its_code_nor_what_it_gives_back(
    number: signal.Signals,
) -> None:
    script = """
import atexit
from jobs.exits import leave

@atexit.register
def give_back():
    told()
    print("given back")
leave(3)
"""
    assert run(script, str(number.value)) == (3, "given back\n", "")


def test_an_error_comes_out_as_it_is_and_the_handler_before_is_back() -> None:
    script = """
async def fails():
    raise ValueError("seven")
try:
    run_until_stopped(fails())
except ValueError as error:
    print(error)
assert signal.getsignal(signal.SIGTERM) is terminate
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    assert run(script) == (0, "seven\n", "")


def test_in_a_thread_of_an_actor_the_work_is_run_and_no_signal_is_touched():
    async def work() -> int:
        return 7

    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lambda: run_until_stopped(work())).result() == 7
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_outside_of_asyncio_too_a_second_signal_cuts_nothing_off(
    first: signal.Signals, second: signal.Signals
) -> None:
    script = """
from jobs.exits import heed_signals
heed_signals()
try:
    told()
finally:
    os.kill(os.getpid(), int(sys.argv[2]))
    print("given back")
"""
    code, said, trouble = run(script, str(first.value), str(second.value))
    expected = Exit.TERMINATED if first == signal.SIGTERM else -first
    assert (code, said) == (expected, "given back\n")
    assert "another exception" not in trouble


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_python_takes_itself_down_changes_nothing(number: signal.Signals) -> None:
    script = """
from jobs import cli

class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), number=int(sys.argv.pop())):
        kill(process, number)
last = Last()
sys.argv = ["vidray", "profile", "show", "--no-such-flag"]
cli.main()
"""
    code, said, trouble = run(script, str(number.value))
    assert (code, said) == (Exit.MISUSED, "")
    assert trouble.splitlines()[-1].startswith("vidray: ")
