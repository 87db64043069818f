"""A folder for copies of videos: one for each driver, locked while that driver lives.

Covered: a driver that is killed (the next one on its job sweeps its folder); several drivers on one
    job and one folder; one that is swept between making its folder and locking it.
Not covered: file systems without locks, where nothing is swept; copies of a job that is never run
    again, which its folder's name tells.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import ConfigError

_LOCK = "lock"


@contextmanager
def copies_folder(job_id: str, *, parent: Path | None = None) -> Iterator[str]:
    """Lend a folder of our own below `parent`, the system's temporary folder if None.

    Those that earlier drivers of this job died without removing are removed first.
    """
    prefix = f"vidray-{job_id}-"
    place = str(parent or tempfile.gettempdir())
    try:
        sweep(place, prefix)
        folder, lock = _claim(place, prefix)
    except OSError as error:
        raise ConfigError(f"no copies can be kept in {place}: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(parent: str, prefix: str) -> None:
    """Remove our own folders of this prefix whose drivers are dead."""
    with os.scandir(parent) as entries:
        found = [entry for entry in entries if entry.name.startswith(prefix)]
    for entry in found:
        with suppress(FileNotFoundError):  # another sweeper was faster
            is_own = entry.stat(follow_symlinks=False).st_uid == os.getuid()
            if is_own and entry.is_dir(follow_symlinks=False):
                _remove_if_dead(entry.path)


def _claim(parent: str, prefix: str) -> tuple[str, int]:
    """A new folder and its lock, held until that handle is closed."""
    while True:
        folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
        with suppress(FileNotFoundError):
            lock = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            if _is_free(lock) is not False and os.fstat(lock).st_nlink:
                return folder, lock
            os.close(lock)
        # Somebody swept it before it was locked: another one.


def _remove_if_dead(folder: str) -> None:
    try:
        lock = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        with suppress(OSError):  # it is being made; if it stays empty, its driver is dead
            os.rmdir(folder)
        return
    try:
        if _is_free(lock):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _is_free(lock: int) -> bool | None:
    """Take the lock; False if somebody holds it, None if this file system has no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
