"""Places that decoders run in: enters one, then tries tests/escapes.py there.

Before anything else is imported: a process with threads enters no user namespace.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.video import seccomp


def without_capabilities() -> None:
    """A user namespace in which this user is root, and gives up all of root's rights."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.geteuid(), os.getegid()
    if libc.unshare(0x1000_0000) != 0:
        raise OSError(ctypes.get_errno(), "no user namespaces here")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    for capability in range(64):
        libc.prctl(24, capability, 0, 0, 0)  # out of the bounding set: exec gives none back
    libc.prctl(38, 1, 0, 0, 0)
    header = (0x2008_0522).to_bytes(4, "little") + bytes(4)
    if libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


# What the common profile of container runtimes refuses to those without CAP_SYS_ADMIN.
CONTAINER = {
    **dict.fromkeys((101, 155, 161, 165, 166, 246, 248, 249, 250, 272, 298, 303, 304), errno.EPERM),
    **dict.fromkeys((308, 310, 311, 312, 321, 323, 425, 426, 427, 428), errno.EPERM),
    435: errno.ENOSYS,
}
OLD_CONTAINER = CONTAINER | dict.fromkeys((444, 445, 446), errno.ENOSYS)
STRICT = OLD_CONTAINER | {317: errno.EPERM}


def _under(profile: dict[int, int]) -> Callable[[], None]:
    def enter() -> None:
        program = [
            seccomp.instruction(0x20, 0),
            *(seccomp.refused(number, error) for number, error in profile.items()),
            seccomp.instruction(0x06, 0x7FFF_0000),
        ]
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
        if not seccomp.install(b"".join(program), seccomp.MACHINES["x86_64"]):
            raise OSError("no seccomp here")

    return enter


def bare() -> None:
    """Nothing but the user's own rights, and the same for whoever asks."""
    without_capabilities()
    _under(STRICT)()


PLACES = {
    "as it is": lambda: None,
    "for decord": lambda: None,
    "user namespace": without_capabilities,
    "container": _under(CONTAINER),
    "old container": _under(OLD_CONTAINER),
    "no seccomp": _under(STRICT),
    "no seccomp, no rights": bare,
}

if __name__ == "__main__":
    PLACES[sys.argv[1]]()
    os.execv(sys.executable, [sys.executable, "-m", "tests.escapes", *sys.argv[1:]])  # noqa: S606
