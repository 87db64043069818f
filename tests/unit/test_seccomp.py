"""The numbers of system calls are the kernel's own, and the filter says what its docstring does."""

import re
from pathlib import Path

import pytest

from pipeline.video.seccomp import MACHINES

HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip("the kernel's headers are not here")
    defined = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    numbers = {name: int(number) for name, number in defined}
    numbers.setdefault("newfstatat", numbers.get("fstatat", -1))
    assert {name: numbers[name] for name in MACHINES[machine].numbers} == MACHINES[machine].numbers
    assert numbers["seccomp"] == MACHINES[machine].seccomp
