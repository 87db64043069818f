"""This process's zygote: decoding children are forked from it, as many as videos need.

Starting Python and FFmpeg takes 0.1 s of a core, a fork 2 ms. One zygote serves a whole process; it
starts with the first child, and a lost one is replaced.
"""

import atexit
import importlib.util
import os
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

from pipeline.errors import Transient

EXIT_GRACE_S = 30.0  # of a machine that is very busy
# One thread: OpenBLAS reserves address space for each. PATH: decord insists on adding to it.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PATH": ""}
PROGRAM = """
import sys
split = sys.argv.index("--")
sys.path[:0] = sys.argv[1:split]
from pipeline.video.zygote_process import main
sys.exit(main(int(sys.argv[split + 1])))
"""


class Leash:
    """The hold on one child: how it ended, and the end of it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._exit_code: int | None = None

    def exit_code(self) -> int:
        """How the child ended; negative: the signal. Raises TimeoutError while it lives."""
        if self._exit_code is None:
            self._end.settimeout(EXIT_GRACE_S)
            answer = self._end.recv(16)
            if not answer:
                raise Transient("the process that decoders are forked from was lost")
            self._exit_code = int(answer)
        return self._exit_code

    def kill(self) -> None:
        """Return when the child is gone."""
        with self._end:
            if self._exit_code is None:
                try:
                    self._end.shutdown(socket.SHUT_WR)
                    self._end.settimeout(EXIT_GRACE_S)
                    self._end.recv(16)
                except TimeoutError:
                    stop_zygote()  # it hangs; the kernel kills its children with it
                except OSError:  # the zygote is gone, and its children with it
                    pass


class Zygote:
    """A running zygote."""

    def __init__(self) -> None:
        self.parent = os.getpid()
        self._control, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(EXIT_GRACE_S)  # one that takes no requests is replaced
        with far_end:
            # Isolated and without site: half the start-up time, and no user's code can reach it.
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-B", "-c", PROGRAM),
                    *(*_import_paths(), "--", str(far_end.fileno())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(far_end.fileno(),),
                env=ENVIRONMENT,
                cwd="/",
            )

    def fork(self, settings: str, *, file_fd: int, channel_fd: int, ring_fd: int) -> Leash:
        """A child that decodes this file and talks over this channel. Raises OSError."""
        near, far = socket.socketpair()
        with far:
            fds = [file_fd, channel_fd, ring_fd, far.fileno()]
            try:
                socket.send_fds(self._control, [settings.encode()], fds)
            except OSError:
                near.close()
                raise
        return Leash(near)

    def close(self) -> None:
        """Kill it, and all its children with it."""
        self._control.close()
        self.process.kill()
        self.process.wait()


_lock = threading.Lock()
_zygote: Zygote | None = None


def fork_child(settings: str, *, file_fd: int, channel_fd: int, ring_fd: int) -> Leash:
    """A new decoding child. Raises Transient if none can be had."""
    for is_last in (False, True):
        zygote = _running()
        try:
            return zygote.fork(settings, file_fd=file_fd, channel_fd=channel_fd, ring_fd=ring_fd)
        except OSError as error:
            _discard(zygote)
            if is_last:
                raise Transient("no decoder could be started") from error
    raise RuntimeError("unreachable")


def stop_zygote() -> None:
    """End this process's zygote and every child of it; the next child starts another."""
    if _zygote is not None:
        _discard(_zygote)


def _running() -> Zygote:
    global _zygote  # noqa: PLW0603  one a process is the point of it
    with _lock:
        if _zygote is None or _zygote.parent != os.getpid():  # a fork's zygote is its parent's
            _zygote = Zygote()
        return _zygote


def _discard(zygote: Zygote) -> None:
    global _zygote  # noqa: PLW0603
    with _lock:
        if _zygote is zygote and zygote.parent == os.getpid():
            _zygote.close()
            _zygote = None


atexit.register(stop_zygote)


@cache
def _import_paths() -> tuple[str, ...]:
    """Where this project, av, numpy and decord lie: all a child may import from."""
    folders = [str(Path(__file__).parents[2])]
    for name in ("av", "numpy", "decord"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            folders.append(str(Path(spec.origin).parents[1]))
    return tuple(dict.fromkeys(folders))
