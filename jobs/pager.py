"""Lines to standard output: as they come, and through the reader's pager on a terminal."""

import os
import sys
from collections.abc import Iterable

import click

# less: end at once if all fits, keep colours, leave the screen as it is.
LESS = "FRX"


def page(lines: Iterable[str]) -> None:
    """Print each line. A reader that has seen enough (head, a pager that is left) ends it well."""
    if sys.stdout.isatty():
        os.environ.setdefault("LESS", LESS)
        click.echo_via_pager(f"{line}\n" for line in lines)
        return
    for line in lines:
        print(line)
