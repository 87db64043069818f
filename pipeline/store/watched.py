"""A store that says how the calls on it went; whoever uses it cannot tell it from the store."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Literal

from pipeline.errors import BadInput
from pipeline.store.objects import ObjectInfo, ObjectStore

Verb = Literal["head", "get", "put", "list"]
Outcome = Literal["ok", "refused", "failed"]  # refused: the object is at fault, not the store
VERBS: tuple[Verb, ...] = ("head", "get", "put", "list")
OUTCOMES: tuple[Outcome, ...] = ("ok", "refused", "failed")


class WatchedStore:
    """told: hears of each call that was answered or given up, after the store's own second tries:
    what it was, how it ended, its seconds and the bytes it moved. Of a listing only that it began.
    """

    def __init__(
        self, store: ObjectStore, told: Callable[[Verb, Outcome, float, int], None]
    ) -> None:
        self._store = store
        self._told = told

    @property
    def uri(self) -> str:
        return self._store.uri

    def describe(self, key: str) -> str:
        return self._store.describe(key)

    def head(self, key: str) -> ObjectInfo:
        with self._call("head"):
            return self._store.head(key)

    def get_range(self, key: str, *, start: int, stop: int, etag: str | None = None) -> bytes:
        with self._call("get") as moved:
            data = self._store.get_range(key, start=start, stop=stop, etag=etag)
            moved.append(len(data))
            return data

    def spool(
        self, key: str, file: IO[bytes], *, max_bytes: int, etag: str | None = None
    ) -> ObjectInfo:
        with self._call("get") as moved:
            info = self._store.spool(key, file, max_bytes=max_bytes, etag=etag)
            moved.append(info.size_bytes)
            return info

    def put_new(self, key: str, data: bytes) -> bool:
        with self._call("put") as moved:
            is_new = self._store.put_new(key, data)
            moved.append(len(data))
            return is_new

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._call("list"):
            return self._store.scan(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def move(self, key: str, to: str) -> None:
        self._store.move(key, to)

    @contextmanager
    def _call(self, verb: Verb) -> Iterator[list[int]]:
        """Yields where the bytes are noted that were moved."""
        began_s = time.monotonic()
        outcome: Outcome = "failed"
        moved: list[int] = []
        try:
            yield moved
            outcome = "ok"
        except BadInput:
            outcome = "refused"
            raise
        finally:
            self._told(verb, outcome, time.monotonic() - began_s, sum(moved))
