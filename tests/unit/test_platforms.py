"""A machine that vidray does not run on is told so in one sentence."""

import pytest

from pipeline.platforms import objection, objection_here

LINUX = {"python": (3, 11, 0), "system": "Linux", "machine": "x86_64", "glibc": "2.31"}


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"python": (3, 9, 2)}, "needs Python 3.11 or newer, this is 3.9"),
        ({"system": "Darwin", "machine": "arm64", "glibc": ""}, "needs Linux, this is Darwin; a"),
        ({"system": "Windows", "machine": "AMD64", "glibc": ""}, "needs Linux, this is Windows; a"),
        ({"machine": "riscv64"}, "needs x86-64 or ARM64, this is riscv64"),
        ({"glibc": "2.28"}, "needs glibc 2.31 or newer, this is 2.28; a"),
        ({"glibc": ""}, "needs glibc 2.31 or newer, this is none; a"),
    ],
    ids=str,
)
def test_a_machine_without_what_is_needed_is_told_what_that_is(other, says):
    assert says in objection(**(LINUX | other))


@pytest.mark.parametrize("other", [{}, {"machine": "aarch64"}, {"glibc": "2.100"}], ids=str)
def test_linux_on_x86_64_and_arm64_has_all_that_is_needed(other):
    assert objection(**(LINUX | other)) == ""


def test_this_machine_has_all_that_is_needed():
    assert objection_here() == ""
