"""Why vLLM did not start: its own process writes that to stderr, and what it raises is that it did.

An actor's stderr is a file of Ray's, which all processes that it starts write to. Where stderr is
no file there is nothing to read.
"""

import os
import re
import stat
from dataclasses import dataclass

_STDERR = 2
_MAX_BYTES = 1 << 20
# As `ValueError: ...` or `torch.OutOfMemoryError: ...`, whatever a logger put before it.
_ERROR = re.compile(r"^(?:\(.*?\) )*((?:\w+\.)*\w*(?:Error|Exception): .+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ErrorLog:
    """What is written to a file descriptor from `start` on."""

    descriptor: int
    start: int

    @classmethod
    def here(cls, descriptor: int = _STDERR) -> "ErrorLog":
        """From now on."""
        return cls(descriptor, os.fstat(descriptor).st_size)

    def last_error(self) -> str | None:
        """The line that the last traceback ends with: an error's name and what it says."""
        state = os.fstat(self.descriptor)
        if not stat.S_ISREG(state.st_mode):
            return None
        with open(f"/proc/self/fd/{self.descriptor}", "rb") as log:
            log.seek(max(self.start, state.st_size - _MAX_BYTES))
            found = _ERROR.findall(log.read().decode(errors="replace"))
        return found[-1] if found else None
