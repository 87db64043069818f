"""A file of lines that is added to while something lasts, and written anew when it is too long."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class StreamFile:
    """A first line, and what `replace` and `add` bring, one call at a time, from any thread. What
    fails to be written is given up, without an error: the rest of it would be another stream's.
    Whoever else has written the file anew has it.
    """

    def __init__(self, path: Path, head: bytes) -> None:
        self.size_bytes = 0
        self._path = path
        self._head = head
        self._file: int | None = None

    def add(self, lines: Iterable[bytes]) -> None:
        """The system has them on return: they outlive this process, not the machine."""
        if self._file is None:
            return
        data = b"".join(lines)
        with suppress(OSError):
            if os.write(self._file, data) == len(data):
                self.size_bytes += len(data)
                return
        self.remove()

    def replace(self, lines: Iterable[bytes]) -> None:
        """Have these lines and no others."""
        if self._file is not None and not self._is_ours(self._file):
            self.close()
            return
        self.close()
        data = b"".join([self._head, *lines])
        part = self._path.with_suffix(f".{os.getpid()}.part")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC
        try:
            self._file = os.open(part, flags, 0o600)
            if os.write(self._file, data) != len(data):
                raise OSError("the disk is full")
            part.replace(self._path)
            self.size_bytes = len(data)
        except OSError:
            with suppress(OSError):  # as of a disk that can only be read by now
                part.unlink()
            self.remove()

    def close(self) -> None:
        """It stays as it is."""
        file, self._file = self._file, None  # whatever comes of it, the number may be another's
        if file is not None:
            with suppress(OSError):
                os.close(file)

    def remove(self) -> None:
        """It goes."""
        with suppress(OSError):
            if self._file is None or self._is_ours(self._file):
                self._path.unlink()
        self.close()

    def _is_ours(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except OSError:
            return False
