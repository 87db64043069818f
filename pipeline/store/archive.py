"""From a planned item to a local file: in place where it is one, else a bounded copy."""

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pipeline.errors import SourceAway, StoreError, StoreFull
from pipeline.store.items import Item
from pipeline.store.links import followed
from pipeline.store.objects import ObjectInfo, ObjectStore, source_changed
from pipeline.store.open import S3_SCHEME, open_store
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import locate


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCopy:
    """A video's bytes on this machine, and the identity they had in the store."""

    path: str
    info: ObjectInfo


Watched = Callable[[ObjectStore], ObjectStore]


def unwatched(store: ObjectStore) -> ObjectStore:
    """As it is."""
    return store


class Archive:
    """Opens planned items. Bytes are fetched here and nowhere else; safe between threads.

    watched: what is used in the place of a store that copies come from.
    """

    def __init__(
        self,
        *,
        s3: S3Config | None = None,
        folder: str,
        max_bytes: int,
        link_roots: Sequence[str] = (),
        watched: Watched = unwatched,
    ) -> None:
        self._s3 = s3
        self._watched = watched
        self._link_roots = link_roots
        self._folder = folder  # for copies; they go when they are closed
        self._max_bytes = max_bytes
        self._stores: dict[str, ObjectStore] = {}
        self._lock = threading.Lock()

    @contextmanager
    def open(self, item: Item) -> Iterator[LocalCopy]:
        """Lend the item's bytes; BadInput(SOURCE_CHANGED) if they are not the planned ones.

        A local file is lent in place, so it is looked at again afterwards; of a link the file that
        it ends at, within link_roots if there are any. SourceAway that is
        raised meanwhile stays one only where this process still sees the file.
        """
        if item.uri.startswith(S3_SCHEME):
            store_uri, key = locate(item.uri)
            with self._copied(self._store(store_uri), key, item.etag) as copy:
                yield copy
            return
        store_uri, key = os.path.split(followed(item.uri, roots=self._link_roots))
        store = open_store(store_uri)
        info = store.head(key)
        if item.etag not in (None, info.etag):
            raise source_changed()
        try:
            yield LocalCopy(path=os.path.join(store_uri, key), info=info)
        except SourceAway:
            if store.head(key) != info:
                raise source_changed() from None
            raise
        if store.head(key) != info:
            raise source_changed()

    @contextmanager
    def _copied(self, store: ObjectStore, key: str, etag: str | None) -> Iterator[LocalCopy]:
        """On the disk and closed before it is lent: readers may be on other machines."""
        handle, path = tempfile.mkstemp(dir=self._folder, prefix="video-")
        try:
            with _writing(self._folder), os.fdopen(handle, "wb") as file:
                info = store.spool(key, file, max_bytes=self._max_bytes, etag=etag)
                file.flush()
                os.fsync(file.fileno())
            yield LocalCopy(path=path, info=info)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def _store(self, uri: str) -> ObjectStore:
        """One client per bucket: its connections are worth keeping."""
        with self._lock:
            if uri not in self._stores:
                self._stores[uri] = self._watched(open_store(uri, self._s3))
            return self._stores[uri]


@contextmanager
def _writing(folder: str) -> Iterator[None]:
    """Translate OSError where a copy is written: never a video's fault."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFull(f"{folder}: no space left for a copy of the object") from error
        raise StoreError(f"{folder}: {error.strerror}") from error
