"""Small real stores for tests: one in memory, and one that fails on command."""

import hashlib
import threading
from collections.abc import Iterator
from typing import IO, Literal

from pipeline.errors import BadInput, FailureCode, Transient
from pipeline.store.objects import (
    ObjectInfo,
    ObjectStore,
    check_key,
    source_changed,
    too_many_bytes,
)

When = Literal["before", "during", "after"]


class MemoryStore:
    """ObjectStore in a dict. Time stands still unless the test moves it."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.now_s = 1_000_000.0
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return "memory"

    def describe(self, key: str) -> str:
        return f"memory: {key}"

    def head(self, key: str) -> ObjectInfo:
        if check_key(key) not in self.objects:
            raise BadInput(FailureCode.NOT_FOUND, "no such object")
        data, modified_s = self.objects[key]
        etag = hashlib.sha256(data).hexdigest()
        return ObjectInfo(key=key, size_bytes=len(data), etag=etag, modified_s=modified_s)

    def get_range(self, key: str, *, start: int, stop: int, etag: str | None = None) -> bytes:
        if etag not in (None, self.head(key).etag):
            raise source_changed()
        return self.objects[key][0][start:stop]

    def spool(
        self, key: str, file: IO[bytes], *, max_bytes: int, etag: str | None = None
    ) -> ObjectInfo:
        info = self.head(key)
        if etag not in (None, info.etag):
            raise source_changed()
        if info.size_bytes > max_bytes:
            raise too_many_bytes(info.size_bytes, max_bytes)
        file.write(self.objects[key][0])
        return info

    def put_new(self, key: str, data: bytes) -> bool:
        with self._lock:
            if check_key(key) in self.objects:
                return False
            self.objects[key] = (data, self.now_s)
            return True

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return (self.head(key) for key in sorted(self.objects) if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def move(self, key: str, to: str) -> None:
        self.objects[to] = self.objects.pop(key)


class FaultyStore:
    """Passes calls on, and fails the one numbered fail_at, once.

    before: nothing happened. after: it happened and the answer was lost. during: a put left
    nothing (they are atomic), a read delivered half.
    """

    def __init__(self, inner: ObjectStore, *, fail_at: int, when: When) -> None:
        self._inner = inner
        self._fail_at = fail_at
        self._when = when
        self.num_calls = 0

    @property
    def uri(self) -> str:
        return self._inner.uri

    def describe(self, key: str) -> str:
        return self._inner.describe(key)

    def head(self, key: str) -> ObjectInfo:
        with _Call(self):
            return self._inner.head(key)

    def get_range(self, key: str, *, start: int, stop: int, etag: str | None = None) -> bytes:
        with _Call(self):
            return self._inner.get_range(key, start=start, stop=stop, etag=etag)

    def spool(
        self, key: str, file: IO[bytes], *, max_bytes: int, etag: str | None = None
    ) -> ObjectInfo:
        with _Call(self) as call:
            if call.fails and self._when == "during":
                file.write(self._inner.get_range(key, start=0, stop=self.head(key).size_bytes // 2))
            return self._inner.spool(key, file, max_bytes=max_bytes, etag=etag)

    def put_new(self, key: str, data: bytes) -> bool:
        with _Call(self) as call:
            if call.fails and self._when == "during":
                raise Transient("the connection broke during the upload")
            return self._inner.put_new(key, data)

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with _Call(self) as call:
            for number, info in enumerate(self._inner.scan(prefix)):
                if call.fails and self._when == "during" and number == 1:
                    raise Transient("the listing broke off")
                yield info

    def delete(self, key: str) -> None:
        with _Call(self):
            self._inner.delete(key)

    def move(self, key: str, to: str) -> None:
        with _Call(self):
            self._inner.move(key, to)


class _Call:
    """One numbered call: fails on entry (before) or on exit (after, during)."""

    def __init__(self, store: FaultyStore) -> None:
        store.num_calls += 1
        self.fails = store.num_calls == store._fail_at
        self._when = store._when

    def __enter__(self) -> "_Call":
        if self.fails and self._when == "before":
            raise Transient("the connection was refused")
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self.fails and (kind is None or issubclass(kind, BadInput)):  # no answer, good or bad
            raise Transient("the answer was lost")
