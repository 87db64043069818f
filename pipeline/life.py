"""Who is at work on something that several may do, and whether they still are."""

import os
import socket
from functools import cache
from pathlib import Path
from uuid import uuid4

_ended = set[str]()


def here() -> str:
    """A name of somebody in this process, by which others may look for it."""
    return f"{_place()}/{os.getpid()}/{uuid4().hex[:8]}"


def end(who: str) -> None:
    """Whoever in this process had this name is at work no more."""
    _ended.add(who)


def is_gone(who: str) -> bool:
    """Certainly at work no more: it ended here, or its process is not seen where it would be."""
    if who in _ended:
        return True
    place, _, pid = who.rpartition("/")[0].rpartition("/")
    return place == _place() and pid.isdecimal() and not _is_alive(pid)


def _is_alive(pid: str) -> bool:
    """A dead process that its parent has not asked for yet is in /proc, too."""
    try:
        stat = Path("/proc", pid, "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return True
    return stat.rpartition(b") ")[2][:1] not in (b"Z", b"X")


@cache
def _place() -> str:
    """Where process ids mean the same: containers may share a host, and its name, without that."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")[:8]
    return f"{socket.gethostname()}.{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
