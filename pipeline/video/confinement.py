"""What a decoding child gives up before it sees the first byte of a file, as far as it may.

Covered: it can gain no rights, has none of root's, cannot be looked into nor look into others of
its user, and is held by seccomp.py and landlock.py. Each that could not be had is told, since
kernels, containers and their runtimes differ.
Not covered: it goes on with the user and the memory that it has; what seccomp.py leaves.
"""

import ctypes
import signal
from struct import Struct

from pipeline.video import landlock, seccomp

# In the order in which they are told. network: of its own, with nobody in it (zygote_process.py).
MEASURES = ("seccomp", "landlock", "capabilities", "network")

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h
_CAPABILITIES_HEADER = Struct("=Ii").pack(0x2008_0522, 0)  # version 3, this thread
_CAPABILITIES = Struct("=6I")  # effective, permitted, inheritable: lower halves, then upper ones
_READ_SEARCH = 1 << 2  # CAP_DAC_READ_SEARCH


def hide_process() -> None:
    """Let no other process of this user read this one's memory and environment, nor trace it.

    Also for those who want to: debuggers, and core dumps, need root from here on.
    """
    _libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def end_with_parent() -> None:
    """Be killed when the parent ends."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def confine(*, may_thread: bool, may_open: int | None) -> tuple[str, ...]:
    """Give up what can be given up; returns which of MEASURES hold, but for the network.

    may_open: a descriptor whose file may be opened again, for reading.
    """
    hide_process()
    _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    holds = {
        "capabilities": _drop_capabilities(may_search=may_open is not None),
        "landlock": landlock.give_up_files(but=may_open),
        "seccomp": seccomp.filter_calls(may_thread=may_thread, may_open=may_open is not None),
    }
    return tuple(measure for measure in MEASURES if holds.get(measure))


def _drop_capabilities(*, may_search: bool) -> bool:
    """may_search: keep the right to read any file, if it is there; Landlock still says which."""
    libc, held = _libc(), ctypes.create_string_buffer(_CAPABILITIES.size)
    if libc.capget(_CAPABILITIES_HEADER, held) != 0:
        return False
    permitted = _CAPABILITIES.unpack(held.raw)[1]
    kept = permitted & _READ_SEARCH if may_search else 0
    dropped: int = libc.capset(_CAPABILITIES_HEADER, _CAPABILITIES.pack(kept, kept, 0, 0, 0, 0))
    return dropped == 0


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
