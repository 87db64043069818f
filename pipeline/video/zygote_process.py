"""The process that decoding children are forked from: all they need is imported, no file is seen.

Each child hangs on a leash, a socket to whoever asked for it: when the other end hangs up, the
child is killed; when the child ends, its exit code goes up the leash. When this process ends, the
kernel kills its children.
Covered: children have no network, where the kernel lets this process leave it (as root, or where
users may make namespaces); they hold no descriptor but their own three; nobody looks into it.
"""

import ctypes
import gc
import os
import selectors
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from pipeline.video import child
from pipeline.video.confinement import end_with_parent, hide_process
from pipeline.video.ffmpeg.video_file import import_all

MAX_REQUEST_BYTES = 1 << 16
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000  # linux/sched.h


def main(control_fd: int) -> int:
    """Fork what is asked for until the parent hangs up. Returns the exit code."""
    for told_to_all in (signal.SIGINT, signal.SIGTERM):  # by a terminal, by a service manager
        signal.signal(told_to_all, signal.SIG_IGN)  # the parent decides
    unshare = ctypes.CDLL(None).unshare
    is_offline = any(
        unshare(kinds) == 0 for kinds in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET)
    )
    hide_process()
    import_all()
    gc.freeze()  # a collection in a child would copy every page
    with suppress(EOFError, ConnectionResetError):
        ZygoteProcess(socket.socket(fileno=control_fd), is_offline=is_offline).serve()
    return 0


class ZygoteProcess:
    """The children that live, and their leashes."""

    def __init__(self, control: socket.socket, *, is_offline: bool) -> None:
        self._control = control
        self._is_offline = is_offline
        self._leashes: dict[int, socket.socket] = {}
        self._bell, bell_rope = socket.socketpair()
        bell_rope.setblocking(False)
        self._bell_rope = bell_rope
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(bell_rope.fileno(), warn_on_full_buffer=False)
        self._selector = selectors.DefaultSelector()
        self._watch(control, self._bear)
        self._watch(self._bell, self._bury)

    def serve(self) -> None:
        """Never returns. Raises EOFError when the parent is gone."""
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _watch(self, end: socket.socket, act: Callable[[], None]) -> None:
        self._selector.register(end, selectors.EVENT_READ, act)

    def _bear(self) -> None:
        settings, fds, _, _ = socket.recv_fds(self._control, MAX_REQUEST_BYTES, 4)
        if not settings:
            raise EOFError
        file_fd, channel_fd, ring_fd, leash_fd = fds
        pid = os.fork()
        if pid == 0:
            os._exit(
                _be_child(
                    file_fd, channel_fd, ring_fd, settings.decode(), is_offline=self._is_offline
                )
            )
        for fd in (file_fd, channel_fd, ring_fd):
            os.close(fd)
        leash = self._leashes[pid] = socket.socket(fileno=leash_fd)
        self._watch(leash, lambda: self._kill(pid))

    def _kill(self, pid: int) -> None:
        if pid in self._leashes:  # else it was buried a moment ago
            self._selector.unregister(self._leashes[pid])
            os.kill(pid, signal.SIGKILL)  # it is not reaped yet, so the number is its own

    def _bury(self) -> None:
        self._bell.recv(4096)
        while self._leashes:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            with self._leashes.pop(pid) as leash:
                with suppress(KeyError):  # it hung up before
                    self._selector.unregister(leash)
                with suppress(OSError):
                    leash.send(str(os.waitstatus_to_exitcode(status)).encode())


def _be_child(
    file_fd: int, channel_fd: int, ring_fd: int, settings: str, *, is_offline: bool
) -> int:
    """Let go of everything that is not the child's, and decode."""
    try:
        end_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(file_fd, child.FILE_FD)
        kept = {0, 1, 2, channel_fd, ring_fd}
        for fd in map(int, os.listdir("/proc/self/fd")):
            if fd not in kept:
                with suppress(OSError):  # the one that listed them
                    os.close(fd)
        return child.main(channel_fd, ring_fd, settings, is_offline=is_offline)
    except BaseException:  # noqa: BLE001  whatever it is, it must not unwind into the zygote's loop
        return 1
