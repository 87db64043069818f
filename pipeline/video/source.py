"""A video file on this machine: opened once, by descriptor, and watched for change while read.

Covered: links that lead nowhere, folders, pipes, devices; missing, forbidden, empty and oversized
    files; a file that is written to while it is read. A name reaches the operating system only,
    never FFmpeg.
Not covered: a change that keeps size and modification time.
"""

import errno
import hashlib
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import BadInput, FailureCode, SourceAway
from pipeline.video.sniff import HEAD_BYTES, sniff

_NOT_FOUND = (FailureCode.NOT_FOUND, "there is no such file")
_FORBIDDEN = (FailureCode.FORBIDDEN, "the file may not be read")
_NOT_REGULAR = (FailureCode.NOT_A_REGULAR_FILE, "this is not a regular file")
_REFUSALS: dict[int | None, tuple[FailureCode, str]] = {
    errno.ENOENT: _NOT_FOUND,
    errno.ENOTDIR: _NOT_FOUND,
    errno.ENAMETOOLONG: _NOT_FOUND,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.ELOOP: (FailureCode.NOT_A_REGULAR_FILE, "a link that leads in a circle"),
    errno.ENXIO: _NOT_REGULAR,  # a socket
    errno.ENODEV: _NOT_REGULAR,
    None: _NOT_REGULAR,  # a NUL in the name
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One video: its name (`uri`, only a label), where its bytes lie, which bytes they are.

    start_s, end_s: a range of this video alone; without one, the range set for all holds. fps:
    likewise. max_frames: of its plan, at the price of fps; whole temporal patches, and never none.
    """

    uri: str
    path: Path
    etag: str | None = None  # the store's name for these bytes; else their sha256 is used
    size_bytes: int | None = None  # as whoever handed it out sees the file; None: nobody looked
    start_s: float | None = None
    end_s: float | None = None
    fps: float | None = None
    max_frames: int | None = None

    @classmethod
    def of(cls, path: Path | str) -> "Source":
        """A local file under its own name; of a link, the file that it ends at."""
        try:
            end = os.path.realpath(path)
        except ValueError:  # a NUL in the name: opening it says so
            end = str(path)
        return cls(uri=str(path), path=Path(end))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """An open, checked, regular file. `demuxer` is FFmpeg's name for its container."""

    fd: int
    size_bytes: int
    demuxer: str
    _stamp: tuple[int, int]

    @classmethod
    def of(cls, fd: int, *, demuxer: str) -> "OpenFile":
        """A file as it is now."""
        status = os.fstat(fd)
        return cls(fd=fd, size_bytes=status.st_size, demuxer=demuxer, _stamp=_stamp(status))

    def require_unchanged(self) -> None:
        """Raise BadInput(SOURCE_CHANGED) if the file was written to since it was opened."""
        with _readable():
            status = os.fstat(self.fd)
        if _stamp(status) != self._stamp:
            raise BadInput(FailureCode.SOURCE_CHANGED, "the file changed while it was read")


@contextmanager
def open_file(source: Source, *, max_bytes: int) -> Iterator[OpenFile]:
    """Open the file, and close it at the end. Raises BadInput for all that is no video.

    SourceAway where this process does not find what somebody else has seen there.
    """
    with _open_seen(source) as fd:
        with _readable():
            status = os.fstat(fd)
        if status.st_size == 0:
            raise BadInput(FailureCode.EMPTY_FILE, "the file has no bytes")
        if status.st_size > max_bytes:
            raise BadInput(FailureCode.TOO_MANY_BYTES, f"{status.st_size} bytes; limit {max_bytes}")
        with _readable():
            head = os.pread(fd, HEAD_BYTES, 0)
        demuxer = sniff(head, uri=source.uri)
        yield OpenFile.of(fd, demuxer=demuxer)


def require_seen(source: Source) -> None:
    """Look at the file, and raise what open_file raises where it is not there, or another one."""
    with _open_seen(source):
        pass


def identity(source: Source) -> str:
    """The source's etag, or else the sha256 of its bytes: equal bytes, equal identity.

    Raises BadInput.
    """
    if source.etag is not None:
        return source.etag
    digest = hashlib.sha256()
    with _open_regular(source.path) as fd, _readable():
        while block := os.read(fd, 1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unreadable(number: int | None) -> BadInput:
    """What becomes of a video whose bytes the disk or the mount does not give out.

    number: the errno it gave.
    """
    reason = os.strerror(number or 0)
    return BadInput(FailureCode.SOURCE_UNREADABLE, f"the file cannot be read: {reason}")


@contextmanager
def _readable() -> Iterator[None]:
    """Around what asks the disk alone: its failure is none of whoever does something with that."""
    try:
        yield
    except OSError as error:
        raise unreadable(error.errno) from error


@contextmanager
def _open_seen(source: Source) -> Iterator[int]:
    """The file, if it is the one that was seen by whoever handed it out."""
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(_open_regular(source.path))
        except BadInput as error:
            if source.size_bytes is None:
                raise
            raise _away(source, error.detail) from error
        with _readable():
            size_bytes = os.fstat(fd).st_size
        if source.size_bytes not in (None, size_bytes):
            raise _away(source, f"there are {size_bytes} bytes, not {source.size_bytes}")
        yield fd


def _away(source: Source, reason: str) -> SourceAway:
    return SourceAway(
        f"{platform.node()} does not see {source.path.parent} as the machine that planned the job "
        f"does: {source.path.name}: {reason}; folders of videos, and that of --copies, have to be "
        "the same on all machines"
    )


@contextmanager
def _open_regular(path: Path) -> Iterator[int]:
    # O_NONBLOCK: opening a FIFO that nobody writes to must not hang before fstat can refuse it.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        number = error.errno if isinstance(error, OSError) else None
        if number in _REFUSALS:
            raise BadInput(*_REFUSALS[number]) from error
        raise unreadable(number) from error
    try:
        with _readable():
            status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(FailureCode.NOT_A_REGULAR_FILE, "this is not a regular file")
        yield fd
    finally:
        os.close(fd)


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
