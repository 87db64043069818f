"""A driver may finish or be killed by the soak; any other end is an error with its last words."""

import signal
import subprocess
import sys

import pytest

from jobs.exits import Exit
from jobs.lab.soak.kills import await_end
from pipeline.errors import VidrayError

ABORT = "import os; os.write(2, b'first\\nterminate called\\n'); os.abort()"
KILLED = -signal.SIGKILL


def start(program: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("program", "code"),
    [("raise SystemExit(3)", Exit.SOME_FAILED), ("import os; os.kill(os.getpid(), 9)", KILLED)],
    ids=["finished", "killed"],
)
def test_an_expected_end_is_told(program: str, code: int) -> None:
    assert await_end(start(program), Exit.SOME_FAILED, KILLED) == code


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (ABORT, "-6, and said: terminate called"),
        ("raise SystemExit('broken')", "1, and said: broken"),
        ("raise SystemExit(0)", "0, and said: nothing"),
    ],
    ids=["aborted", "failed", "saw no bad video"],
)
def test_any_other_end_is_an_error(program: str, said: str) -> None:
    with pytest.raises(VidrayError, match=said):
        await_end(start(program), Exit.SOME_FAILED, KILLED)
