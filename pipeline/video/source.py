"""A video file on this machine: opened once, by descriptor, and watched for change while read.

Covered: links, folders, pipes, devices, missing, forbidden, empty and oversized files; a file that
is written to while it is read. A file's name reaches the operating system only, never FFmpeg.
Not covered: a change that keeps size and modification time.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import BadInput, FailureCode
from pipeline.video.sniff import HEAD_BYTES, sniff

_REFUSALS: dict[type[Exception], tuple[FailureCode, str]] = {
    FileNotFoundError: (FailureCode.NOT_FOUND, "there is no such file"),
    NotADirectoryError: (FailureCode.NOT_FOUND, "there is no such file"),
    PermissionError: (FailureCode.FORBIDDEN, "the file may not be read"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One video: its name (`uri`, only a label), where its bytes lie, which bytes they are.

    start_s, end_s: a range of this video alone; without one, the range set for all holds.
    """

    uri: str
    path: Path
    etag: str | None = None  # the store's name for these bytes; else their sha256 is used
    start_s: float | None = None
    end_s: float | None = None

    @classmethod
    def of(cls, path: Path | str) -> "Source":
        """A local file under its own name."""
        return cls(uri=str(path), path=Path(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """An open, checked, regular file. `demuxer` is FFmpeg's name for its container."""

    fd: int
    size_bytes: int
    demuxer: str
    _stamp: tuple[int, int]

    def require_unchanged(self) -> None:
        """Raise BadInput(SOURCE_CHANGED) if the file was written to since it was opened."""
        if _stamp(os.fstat(self.fd)) != self._stamp:
            raise BadInput(FailureCode.SOURCE_CHANGED, "the file changed while it was read")


@contextmanager
def open_file(source: Source, *, max_bytes: int) -> Iterator[OpenFile]:
    """Open the file, and close it at the end. Raises BadInput for all that is no video."""
    with _open_regular(source.path) as fd:
        status = os.fstat(fd)
        if status.st_size == 0:
            raise BadInput(FailureCode.EMPTY_FILE, "the file has no bytes")
        if status.st_size > max_bytes:
            raise BadInput(FailureCode.TOO_MANY_BYTES, f"{status.st_size} bytes; limit {max_bytes}")
        demuxer = sniff(os.pread(fd, HEAD_BYTES, 0), uri=source.uri)
        yield OpenFile(fd=fd, size_bytes=status.st_size, demuxer=demuxer, _stamp=_stamp(status))


def identity(source: Source) -> str:
    """The source's etag, or else the sha256 of its bytes: equal bytes, equal identity."""
    if source.etag is not None:
        return source.etag
    digest = hashlib.sha256()
    with _open_regular(source.path) as fd:
        while block := os.read(fd, 1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _open_regular(path: Path) -> Iterator[int]:
    # O_NONBLOCK: opening a FIFO that nobody writes to must not hang before fstat can refuse it.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        code, sentence = _REFUSALS.get(
            type(error), (FailureCode.NOT_A_REGULAR_FILE, "this is not a regular file")
        )
        raise BadInput(code, sentence) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BadInput(FailureCode.NOT_A_REGULAR_FILE, "this is not a regular file")
        yield fd
    finally:
        os.close(fd)


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
