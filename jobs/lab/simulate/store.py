"""A store in memory that counts its requests, by kind and by the second of the virtual clock."""

import asyncio
import hashlib
import threading
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeVar
from unittest.mock import patch

from pipeline.errors import BadInput, FailureCode
from pipeline.store.commit import READERS
from pipeline.store.objects import ObjectInfo, too_many_bytes

KEYS_PER_LIST = 1_000  # as S3 pages
LAST = chr(0x10FFFF)  # sorts behind all that a key has
Value = TypeVar("Value")


class CountingStore:
    """An ObjectStore. latency_s: of one request. clock: a virtual one.

    waited_s: what its requests took, those of several threads of one call at the same time.
    """

    uri = "simulated"

    def __init__(self, clock: Callable[[], float], *, latency_s: float = 0.03) -> None:
        self.latency_s = latency_s
        self.waited_s = 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self.objects: dict[str, bytes] = {}
        self._infos: dict[str, ObjectInfo] = {}
        self._keys: list[str] = []  # sorted
        self.requests: Counter[str] = Counter()
        self.by_second: Counter[int] = Counter()

    @property
    def busiest_second(self) -> int:
        """Requests in it."""
        return max(self.by_second.values(), default=0)

    def describe(self, key: str) -> str:
        return f"{self.uri}: {key}"

    def head(self, key: str) -> ObjectInfo:
        self._count("head")
        return self._info(key)

    def get_range(self, key: str, *, start: int, stop: int, etag: str | None = None) -> bytes:
        self._count("get")
        self._info(key)
        return self.objects[key][start:stop]

    def spool(
        self, key: str, file: IO[bytes], *, max_bytes: int, etag: str | None = None
    ) -> ObjectInfo:
        self._count("get")
        info = self._info(key)
        if info.size_bytes > max_bytes:
            raise too_many_bytes(info.size_bytes, max_bytes)
        file.write(self.objects[key])
        return info

    def put_new(self, key: str, data: bytes) -> bool:
        self._count("put")
        if key in self.objects:
            return False
        etag = hashlib.sha256(data).hexdigest()
        self.objects[key] = data
        self._infos[key] = ObjectInfo(
            key=key, size_bytes=len(data), etag=etag, modified_s=self._clock()
        )
        insort(self._keys, key)
        return True

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        first = bisect_left(self._keys, prefix)
        stop = bisect_left(self._keys, prefix + LAST, lo=first)
        for number, key in enumerate(self._keys[first:stop] or [""]):
            if number % KEYS_PER_LIST == 0:
                self._count("list")
            if key:
                yield self._infos[key]

    def delete(self, key: str) -> None:
        raise NotImplementedError("no driver deletes")

    def move(self, key: str, to: str) -> None:
        raise NotImplementedError("no driver moves")

    def _info(self, key: str) -> ObjectInfo:
        if key not in self.objects:
            raise BadInput(FailureCode.NOT_FOUND, "no such object")
        return self._infos[key]

    def _count(self, kind: str) -> None:
        is_alone = threading.current_thread() is threading.main_thread()
        with self._lock:
            self.requests[kind] += 1
            self.by_second[int(self._clock())] += 1
            self.waited_s += self.latency_s / (1 if is_alone else READERS)


@contextmanager
def drivers_of(store: CountingStore) -> Iterator[None]:
    """What a driver does in threads happens at once, and takes its requests' latency. Each is on a
    machine of its own: no other sees that it died.
    """

    async def in_thread(call: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
        before_s = store.waited_s
        result = call(*args, **kwargs)
        await asyncio.sleep(store.waited_s - before_s)
        return result

    with patch.multiple("pipeline.store.drive", in_thread=in_thread, end=lambda name: None):
        yield
