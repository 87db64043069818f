"""Files that a command was told to write: whatever goes wrong with one is said by its name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_to(path: Path | str) -> Iterator[None]:
    """An OSError that names no file, as of a full disk, is this one's."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
