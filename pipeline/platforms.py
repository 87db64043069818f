"""Where vidray runs. `make` asks with whatever Python is there, before anything is installed.

Tested: Linux on x86-64. The same on ARM64: every wheel is there but decord's.
Elsewhere decoding has no sandbox to run in: it needs Linux's sealed memory files, packet sockets
between processes, and children that die with their parent.
"""

import platform
import sys

PYTHON = (3, 11)
GLIBC = (2, 31)  # of llguidance's wheels; others are content with less
MACHINES = ("x86_64", "aarch64")
ELSEWHERE = "; a Linux container or virtual machine will do"


def objection(*, python: "tuple[int, ...]", system: str, machine: str, glibc: str) -> str:
    """Why vidray does not run there, in a sentence; empty if it does.

    glibc: its version, empty for another C library.
    """
    if python[:2] < PYTHON:
        return f"vidray needs Python {_dotted(PYTHON)} or newer, this is {_dotted(python)}"
    if system != "Linux":
        return f"vidray needs Linux, this is {system or 'unknown'}{ELSEWHERE}"
    if machine not in MACHINES:
        return f"vidray needs x86-64 or ARM64, this is {machine}"
    if not glibc or tuple(map(int, glibc.split(".")[:2])) < GLIBC:
        return f"vidray needs glibc {_dotted(GLIBC)} or newer, this is {glibc or 'none'}{ELSEWHERE}"
    return ""


def objection_here() -> str:
    """The same of this machine."""
    library, version = platform.libc_ver()
    return objection(
        python=sys.version_info[:3],
        system=platform.system(),
        machine=platform.machine(),
        glibc=version if library == "glibc" else "",
    )


def _dotted(version: "tuple[int, ...]") -> str:
    return ".".join(map(str, version))


if __name__ == "__main__":
    sys.exit(objection_here() or 0)
