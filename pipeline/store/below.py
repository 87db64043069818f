"""A part of a store as a store of its own: everything below a prefix."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from pipeline.store.objects import ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True)
class Below:
    """ObjectStore over what lies below `prefix`, which ends in a slash."""

    outer: ObjectStore
    prefix: str

    @property
    def uri(self) -> str:
        return f"{self.outer.uri.rstrip('/')}/{self.prefix.rstrip('/')}"

    def describe(self, key: str) -> str:
        return self.outer.describe(self.prefix + key)

    def head(self, key: str) -> ObjectInfo:
        return self._inner(self.outer.head(self.prefix + key))

    def get_range(self, key: str, *, start: int, stop: int, etag: str | None = None) -> bytes:
        return self.outer.get_range(self.prefix + key, start=start, stop=stop, etag=etag)

    def spool(
        self, key: str, file: IO[bytes], *, max_bytes: int, etag: str | None = None
    ) -> ObjectInfo:
        found = self.outer.spool(self.prefix + key, file, max_bytes=max_bytes, etag=etag)
        return self._inner(found)

    def put_new(self, key: str, data: bytes) -> bool:
        return self.outer.put_new(self.prefix + key, data)

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return map(self._inner, self.outer.scan(self.prefix + prefix))

    def delete(self, key: str) -> None:
        self.outer.delete(self.prefix + key)

    def move(self, key: str, to: str) -> None:
        self.outer.move(self.prefix + key, self.prefix + to)

    def _inner(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, key=info.key.removeprefix(self.prefix))
