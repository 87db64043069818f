"""The libraries that read videos: which there are, and which of them this machine has."""

from importlib.util import find_spec
from typing import Literal

from pipeline.errors import ConfigError

Reader = Literal["pyav", "decord"]


def is_installed(reader: Reader) -> bool:
    """Whether this machine has the library; decord has wheels for x86-64 Linux and Windows only."""
    return reader == "pyav" or find_spec("decord") is not None


def require_installed(reader: Reader) -> None:
    """ConfigError if this machine does not have the reader's library."""
    if not is_installed(reader):
        raise ConfigError(f"the reader {reader} is not installed: it has no wheel for this machine")
