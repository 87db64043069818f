"""A command on a pseudo-terminal of some width: its exit code, and what the terminal was sent."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

VIDRAY = Path(sys.executable).with_name("vidray")
DEADLINE_S = 90


def on_a_terminal(*arguments: object, width: int = 80, **environment: str) -> tuple[int, str]:
    """Run `vidray` with these arguments; its words come without colours and carriage returns."""
    screen, far_end = pty.openpty()
    fcntl.ioctl(far_end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    keep = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [str(VIDRAY), *map(str, arguments)],
        env=keep | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"} | environment,
        stdin=far_end,
        stdout=far_end,
        stderr=far_end,
    )
    os.close(far_end)
    sent = bytearray()
    with suppress(OSError):  # EIO: the other end was closed
        while block := os.read(screen, 65_536):
            sent += block
    os.close(screen)
    return process.wait(DEADLINE_S), plain(sent.decode(errors="replace"))


def plain(screen: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).replace("\r", "")
