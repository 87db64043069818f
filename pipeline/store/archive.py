"""From a planned item to a local file: in place where it is one, else a bounded copy."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.store.items import Item
from pipeline.store.objects import ObjectInfo, ObjectStore, source_changed
from pipeline.store.open import S3_SCHEME, open_store
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import locate


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCopy:
    """A video's bytes on this machine, and the identity they had in the store."""

    path: str
    info: ObjectInfo


class Archive:
    """Opens planned items. Bytes are fetched here and nowhere else; safe between threads."""

    def __init__(self, *, s3: S3Config | None = None, folder: str, max_bytes: int) -> None:
        self._s3 = s3
        self._folder = folder  # for copies; they go when they are closed
        self._max_bytes = max_bytes
        self._stores: dict[str, ObjectStore] = {}
        self._lock = threading.Lock()

    @contextmanager
    def open(self, item: Item) -> Iterator[LocalCopy]:
        """Lend the item's bytes; BadInput(SOURCE_CHANGED) if they are not the planned ones.

        A local file is lent in place, so it is looked at again afterwards.
        """
        store_uri, key = locate(item.uri)
        if item.uri.startswith(S3_SCHEME):
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix="video-") as copy:
                store = self._store(store_uri)
                info = store.spool(key, copy, max_bytes=self._max_bytes, etag=item.etag)
                copy.flush()
                yield LocalCopy(path=copy.name, info=info)
            return
        store = open_store(store_uri)
        info = store.head(key)
        if item.etag not in (None, info.etag):
            raise source_changed()
        yield LocalCopy(path=os.path.join(store_uri, key), info=info)
        if store.head(key) != info:
            raise source_changed()

    def _store(self, uri: str) -> ObjectStore:
        """One client per bucket: its connections are worth keeping."""
        with self._lock:
            if uri not in self._stores:
                self._stores[uri] = open_store(uri, self._s3)
            return self._stores[uri]
