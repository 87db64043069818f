"""The console that commands speak through."""

from typing import IO

from rich.console import Console


def console_of(
    *, stderr: bool = False, quiet: bool = False, file: IO[str] | None = None
) -> Console:
    """One that shows every text as it is: a name may hold [brackets] or a :word:, which rich would
    take for markup and emoji.
    """
    return Console(
        stderr=stderr, quiet=quiet, file=file, markup=False, emoji=False, highlight=False
    )
