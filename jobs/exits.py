"""How a vidray process ends."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1  # the command; run it again
    MISUSED = 2  # an option, a setting, a model folder
    SOME_FAILED = 3  # finished, and some videos have a failure row
    INTERRUPTED = 130  # by Ctrl-C; a batch job goes on when it is run again
    TERMINATED = 143  # by SIGTERM, likewise
