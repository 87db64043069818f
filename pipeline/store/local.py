"""A folder as an object store.

Covered: an object appears whole or not at all, and survives a power cut once put_new returned;
    keys that climb out of the folder; symlinks at any depth below it; FIFOs and devices (never
    opened for blocking reads); a full disk.
Not covered: other programs rewriting files in place; file systems without hard links (refused by
    the first put); a network file system that acknowledges before it stores.
"""

import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import MIB
from pipeline.errors import (
    BadInput,
    ConfigError,
    FailureCode,
    StoreDenied,
    StoreError,
    StoreFull,
    Transient,
    VidrayError,
)
from pipeline.store.objects import ObjectInfo, check_path_key, source_changed, too_many_bytes

LeftOut = Callable[[str, str], None]  # a folder, and why
LINKED = "a link to a folder is not followed"
TEMP_SUFFIX = ".tmp"  # of a put that was cut short; fsck removes it
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NAMES_PER_BLOCK = 65_536

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}  # the last of an output's folder
_NO_PLACE = {*_ABSENT, errno.EEXIST, errno.ELOOP}  # as in /proc, below a file, in a file's place
_NO_LINKS = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_PASSING = {errno.EINTR, errno.EAGAIN, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE}


class LocalStore:
    """ObjectStore over a folder: keys are paths below it.

    left_out: hears of folders below it that a listing leaves out, which is an error without it.
    """

    def __init__(self, folder: str, *, left_out: LeftOut | None = None) -> None:
        self._root = os.path.abspath(folder)
        self._left_out = left_out

    @property
    def uri(self) -> str:
        return self._root

    def describe(self, key: str) -> str:
        return os.path.join(self._root, key)

    def head(self, key: str) -> ObjectInfo:
        with _reading(), self._open_file(key) as file:
            return _describe(key, os.fstat(file.fileno()))

    def get_range(self, key: str, *, start: int, stop: int, etag: str | None = None) -> bytes:
        with _reading(), self._open_file(key) as file:
            _check_etag(_describe(key, os.fstat(file.fileno())), etag)
            file.seek(start)
            return file.read(stop - start)

    def spool(
        self, key: str, file: IO[bytes], *, max_bytes: int, etag: str | None = None
    ) -> ObjectInfo:
        with _reading(), self._open_file(key) as source:
            info = _describe(key, os.fstat(source.fileno()))
            _check_etag(info, etag)
            num_read = 0
            while block := source.read(MIB):
                num_read += len(block)
                if num_read > max_bytes:
                    raise too_many_bytes(num_read, max_bytes)
                file.write(block)
            # A writer at work while we read: the copy may be half old, half new.
            _check_etag(_describe(key, os.fstat(source.fileno())), info.etag)
            return info

    def put_new(self, key: str, data: bytes) -> bool:
        with _serving(self._root), self._open_parent(_checked(key), create=True) as (parent, name):
            temp = f".{uuid.uuid4().hex}{TEMP_SUFFIX}"
            try:
                _write_whole(parent, temp, data)
                # link refuses an existing name atomically; rename would replace it.
                os.link(temp, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                return False
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temp, dir_fd=parent)
            os.fsync(parent)
            return True

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with _serving(self._root):
            yield from self._walk(prefix)

    def delete(self, key: str) -> None:
        with (
            _serving(self._root),
            suppress(FileNotFoundError),
            self._open_parent(_checked(key), create=False) as (parent, name),
        ):
            os.unlink(name, dir_fd=parent)

    def move(self, key: str, to: str) -> None:
        with (
            _serving(self._root),
            self._open_parent(check_path_key(key), create=False) as (parent, name),
            self._open_parent(check_path_key(to), create=True) as (new_parent, new_name),
        ):
            os.rename(name, new_name, src_dir_fd=parent, dst_dir_fd=new_parent)
            os.fsync(new_parent)
            os.fsync(parent)

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        """Depth first by name; no symlink leads to another folder; odd files are listed too."""
        open_folders = [iter([prefix.rpartition("/")[0]])]
        while open_folders:
            if (path := next(open_folders[-1], None)) is None:
                open_folders.pop()
                continue
            key = path.strip("/")
            try:
                status = os.lstat(os.path.join(self._root, key))
            except FileNotFoundError:  # gone since its folder was read
                continue
            if stat.S_ISDIR(status.st_mode):
                if key.startswith(prefix) or prefix.startswith(key):
                    open_folders.append(self._children(key))
            elif key.startswith(prefix):
                if stat.S_ISLNK(status.st_mode) and os.path.isdir(os.path.join(self._root, key)):
                    self._leave_out(key, LINKED)
                yield _describe(key, self._at_the_end(key, status))

    def _at_the_end(self, key: str, status: os.stat_result) -> os.stat_result:
        """Of the regular file that a link ends at; of anything else its own."""
        if stat.S_ISLNK(status.st_mode):
            with suppress(OSError):
                end = os.stat(os.path.join(self._root, key))
                return end if stat.S_ISREG(end.st_mode) else status
        return status

    def _children(self, key: str) -> Iterator[str]:
        """Keys in one folder, sorted; a million names cost about 30 bytes each, not 100."""
        blocks, block = [], []
        try:
            with os.scandir(os.path.join(self._root, key)) as entries:
                for entry in entries:
                    block.append(os.fsencode(entry.name))
                    if len(block) == _NAMES_PER_BLOCK:
                        blocks.append(pa.array(block, pa.binary()))
                        block = []
        except FileNotFoundError:
            if not key:
                raise  # else it is gone since its own folder was read
        except PermissionError as error:
            if not key or self._left_out is None:
                raise
            self._leave_out(key, f"the folder cannot be read ({error.strerror})")
        names = pa.chunked_array([*blocks, pa.array(block, pa.binary())])
        order = pc.sort_indices(names)
        return (f"{key}/{os.fsdecode(names[i.as_py()].as_py())}" for i in order)

    def _leave_out(self, key: str, why: str) -> None:
        if self._left_out is not None:
            self._left_out(os.path.join(self._root, key), why)

    @contextmanager
    def _open_parent(self, key: str, *, create: bool) -> Iterator[tuple[int, str]]:
        """Walk to the key's folder one segment at a time, so that no symlink leads outside."""
        *folders, name = key.split("/")
        if create:
            self._make_root()
        handle = os.open(self._root, _FOLDER)
        try:
            for folder in folders:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(folder, dir_fd=handle)
                child = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=handle)
                os.close(handle)
                handle = child
            yield handle, name
        finally:
            os.close(handle)

    def _make_root(self) -> None:
        """StoreDenied where no folder can be: whoever named the place has to name another."""
        try:
            os.makedirs(self._root, exist_ok=True)
        except OSError as error:
            if error.errno in _NO_PLACE:
                why = "no folder can be made there"
                raise StoreDenied(f"{self._root}: {why} ({error.strerror})") from error
            raise

    @contextmanager
    def _open_file(self, key: str) -> Iterator[IO[bytes]]:
        with self._open_parent(_checked(key), create=False) as (parent, name):
            # O_NONBLOCK: opening a FIFO would otherwise wait for a writer, perhaps for ever.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            handle = os.open(name, flags, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise _not_regular()
        with os.fdopen(handle, "rb") as file:
            yield file


def _checked(key: str) -> str:
    return check_path_key(key, errors="surrogateescape")


def _write_whole(parent: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o644, dir_fd=parent), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _describe(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size_bytes=status.st_size,
        etag=f"{status.st_size:x}-{status.st_mtime_ns:x}",
        modified_s=status.st_mtime,
    )


def _check_etag(info: ObjectInfo, etag: str | None) -> None:
    if etag is not None and info.etag != etag:
        raise source_changed()


def _not_regular() -> BadInput:
    return BadInput(FailureCode.NOT_A_REGULAR_FILE, "a link, folder, pipe or device, not a file")


@contextmanager
def _reading() -> Iterator[None]:
    """Translate OSError where an object is read: mostly the object's fault."""
    try:
        yield
    except OSError as error:
        raise _reading_error(error) from error


def _reading_error(error: OSError) -> VidrayError:
    if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):  # a symlink, a socket, a device
        return _not_regular()
    if error.errno in _ABSENT:
        return BadInput(FailureCode.NOT_FOUND, "no such object")
    if error.errno in _DENIED:
        return BadInput(FailureCode.FORBIDDEN, "reading is not permitted")
    if error.errno in _FULL:  # of the file being copied into
        return StoreFull("no space left for a copy of the object")
    return Transient(f"reading failed: {error.strerror}")


@contextmanager
def _serving(root: str) -> Iterator[None]:
    """Translate OSError where the folder itself is written or listed: never a video's fault."""
    try:
        yield
    except OSError as error:
        raise _serving_error(error, root) from error


def _serving_error(error: OSError, root: str) -> VidrayError:
    if error.errno in _FULL:
        return StoreFull(f"{root}: no space left")
    if error.errno in _NO_LINKS:
        return ConfigError(f"{root}: this file system has no hard links, which safe puts need")
    if error.errno in _DENIED:
        return StoreDenied(f"{root}: {error.strerror}")
    if error.errno in _PASSING:
        return Transient(f"{root}: {error.strerror}")
    return StoreError(f"{root}: {error.strerror}")
