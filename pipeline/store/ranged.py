"""An object as a file of which only those bytes are fetched that somebody reads."""

import io
import os
from typing import Any

from pipeline.store.objects import ObjectInfo, ObjectStore


class RangedFile(io.RawIOBase):
    """Each read is one ranged request, or none where the one before it fetched those bytes.

    BadInput(SOURCE_CHANGED) if the object is no longer the one that `info` describes.
    """

    def __init__(self, store: ObjectStore, info: ObjectInfo) -> None:
        self._store = store
        self._info = info
        self._position = 0
        self._held_from, self._held = 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._info.size_bytes}
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        start = self._position
        stop = min(start + len(buffer), self._info.size_bytes)
        if start >= stop:
            return 0
        if start < self._held_from or stop > self._held_from + len(self._held):
            self._held_from = start
            self._held = self._store.get_range(
                self._info.key, start=start, stop=stop, etag=self._info.etag
            )
        found = self._held[start - self._held_from : stop - self._held_from]
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)
