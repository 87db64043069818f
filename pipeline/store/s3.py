"""An S3 bucket, or a prefix of one, as an object store: any endpoint, by the minio client.

Covered: create-only puts; answers that are slow, broken, refused, or lost after taking effect;
    a download that breaks off (it goes on where it stopped, if the object is still the same).
Not covered: objects above 5 GiB on the way in (parts are at most 64 MiB); versioned reads.
"""

import base64
import errno
import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import IO, Any, TypeVar

import minio
import urllib3
from minio.commonconfig import CopySource
from minio.datatypes import Object
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.time import from_http_header
from urllib3.response import BaseHTTPResponse

from pipeline.config import MIB
from pipeline.errors import (
    BadInput,
    StoreDenied,
    StoreError,
    StoreFull,
    Transient,
    VidrayError,
)
from pipeline.store.objects import ObjectInfo, check_key, source_changed, too_many_bytes
from pipeline.store.retry import retry
from pipeline.store.s3_config import S3Config
from pipeline.store.s3_errors import error_code, translate

T = TypeVar("T")
_PAGE = 1000  # keys in one listing answer, the most S3 gives
_URL_LIFE = timedelta(hours=1)
_BLOCK_BYTES = MIB
_DOT = re.compile(r"(?<=/)\.(?=/|$)")
_log = logging.getLogger("vidray.store")


class S3Store:
    """ObjectStore over s3://bucket/prefix."""

    def __init__(self, bucket: str, prefix: str, config: S3Config) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._config = config
        timeout = urllib3.Timeout(connect=config.connect_timeout_s, read=config.read_timeout_s)
        # No retries below ours: they would multiply, and they know nothing of deadlines.
        self._http = _VerbatimPaths(timeout=timeout, retries=False, maxsize=config.max_connections)
        self._client = minio.Minio(
            endpoint=config.host,
            credentials=config.keys,
            secure=config.secure,
            region=config.region,
            http_client=self._http,
        )
        self._lock = threading.Lock()
        self._told = 1  # the number of the last try that was told of

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def describe(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key} at {self._config.reached}"

    def head(self, key: str) -> ObjectInfo:
        name = self._name(key)

        def ask() -> ObjectInfo:
            with self._asking("HeadObject", key):
                return self._describe(self._client.stat_object(self._bucket, name))

        return self._retry(ask)

    def get_range(self, key: str, *, start: int, stop: int, etag: str | None = None) -> bytes:
        check_key(key)

        def ask() -> bytes:
            with self._open(key, start=start, stop=stop, etag=etag) as response:
                return b"".join(self._blocks(response))

        return self._retry(ask, size_bytes=stop - start)

    def spool(
        self, key: str, file: IO[bytes], *, max_bytes: int, etag: str | None = None
    ) -> ObjectInfo:
        check_key(key)
        seen: list[ObjectInfo] = []  # what the first answer promised; later tries must match it
        base = file.tell()
        # Less is no progress: a store that cuts every answer short is given up some time.
        step_bytes = max(1, self._pace_bytes)

        def progress() -> int:
            return (file.tell() - base) // step_bytes

        def go_on() -> ObjectInfo:
            """Idempotent: each try continues at the first byte that is not in the file yet."""
            num_read = file.tell() - base
            if seen and num_read == seen[0].size_bytes:
                return seen[0]
            expected = seen[0].etag if seen else etag
            with self._open(key, start=num_read, stop=None, etag=expected) as response:
                if not seen:
                    seen.append(_described(key, response))
                if seen[0].size_bytes > max_bytes:
                    raise too_many_bytes(seen[0].size_bytes, max_bytes)
                for block in self._blocks(response):
                    file.write(block)
            return seen[0]

        return self._retry(go_on, progress=progress)

    def put_new(self, key: str, data: bytes) -> bool:
        name = self._name(key)
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        headers = {
            "If-None-Match": "*",
            "Content-MD5": base64.b64encode(digest).decode(),  # the server checks what arrived
            "Content-Type": "application/octet-stream",
        }

        def send() -> bool:
            """Idempotent: same key, same bytes, create-only."""
            with self._asking("PutObject", key, is_read=False):
                # put_object of minio 7.2 drops If-None-Match without a word; a signed URL does not.
                url = self._client.get_presigned_url("PUT", self._bucket, name, _URL_LIFE)
                response = self._http.urlopen("PUT", url, body=data, headers=headers)
                if response.status not in (200, 201, 204, 412):
                    raise translate(response.status, error_code(response.data), is_read=False)
            return response.status != 412

        return self._retry(send, size_bytes=len(data))

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        after: str | None = None
        while True:
            page = self._retry(partial(self._page, prefix, after))
            # "folder/" is what consoles create to show an empty folder; it is no file.
            yield from (info for info in page if info.key and not info.key.endswith("/"))
            if len(page) < _PAGE:
                return
            after = self._prefix + page[-1].key

    def delete(self, key: str) -> None:
        def send() -> None:
            with self._asking("DeleteObject", key, is_read=False):
                self._client.remove_object(self._bucket, self._prefix + key)

        self._retry(send)

    def _name(self, key: str) -> str:
        return _Verbatim(self._prefix + check_key(key))

    def move(self, key: str, to: str) -> None:
        source = CopySource(self._bucket, self._prefix + key)

        def copy() -> None:
            """Idempotent: the same bytes under the same new name."""
            with self._asking("CopyObject", key, is_read=False):
                self._client.copy_object(self._bucket, self._name(to), source)

        self._retry(copy)
        self.delete(key)

    def _page(self, prefix: str, after: str | None) -> list[ObjectInfo]:
        """At most 1000 objects after a key: exactly one request, so a retry repeats only that."""
        with self._asking("ListObjects", prefix, is_read=False):
            found = self._client.list_objects(
                self._bucket, prefix=self._prefix + prefix, recursive=True, start_after=after
            )
            return [self._describe(entry) for entry in islice(found, _PAGE)]

    def _describe(self, entry: Object) -> ObjectInfo:
        return ObjectInfo(
            key=(entry.object_name or "").removeprefix(self._prefix),
            size_bytes=entry.size or 0,
            etag=(entry.etag or "").strip('"'),
            modified_s=entry.last_modified.timestamp() if entry.last_modified else 0.0,
        )

    @contextmanager
    def _open(
        self, key: str, *, start: int, stop: int | None, etag: str | None
    ) -> Iterator[BaseHTTPResponse]:
        """A GET whose answer has begun; the connection is given back, or closed when unread."""
        headers: dict[str, str | list[str] | tuple[str]] = {}
        is_part = start > 0 or stop is not None  # a range of an empty object is an error
        if is_part:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        if etag is not None:
            headers["If-Match"] = f'"{etag}"'
        with self._asking("GetObject", key):
            name = self._name(key)
            response = self._client.get_object(self._bucket, name, request_headers=headers)
            try:
                if is_part and response.status != 206:
                    raise StoreError("the store ignores byte ranges")
                if etag is not None and response.headers.get("ETag", "").strip('"') != etag:
                    raise source_changed()
                yield response
                response.release_conn()
            finally:
                response.close()

    @property
    def _pace_bytes(self) -> int:
        """What has to come within read_timeout_s."""
        return int(self._config.min_bytes_per_s * self._config.read_timeout_s)

    def _blocks(self, response: BaseHTTPResponse) -> Iterator[bytes]:
        """The body as it arrives, all of it or Transient; at the least pace it may last."""
        missing = _length(response)
        since_s, num_bytes = time.monotonic(), 0
        # read1 returns after one receive, so a trickle is noticed; the bytes stay as stored.
        while missing and (block := response.read1(_BLOCK_BYTES, decode_content=False)):
            missing -= len(block)
            num_bytes += len(block)
            yield block
            if num_bytes >= self._pace_bytes:
                since_s, num_bytes = time.monotonic(), 0
            elif missing and time.monotonic() - since_s > self._config.read_timeout_s:
                raise Transient("the answer came too slowly")
        if missing:
            raise Transient(f"the answer ended {missing} bytes early")

    def _retry(
        self, call: Callable[[], T], *, size_bytes: int = 0, progress: Callable[[], int] = lambda: 0
    ) -> T:
        """size_bytes: what each try moves from its start; it may take as long as the least pace."""
        policy = self._config.retry
        allowed_s = policy.deadline_s + size_bytes / self._config.min_bytes_per_s
        try:
            return retry(
                call, replace(policy, deadline_s=allowed_s), progress=progress, told=self._tell
            )
        finally:
            self._told = 1

    def _tell(self, error: Transient, number: int) -> None:
        """Of many calls that meet the same trouble, one is enough for each further try."""
        with self._lock:
            is_news, self._told = number > self._told, max(number, self._told)
        if is_news:
            _log.warning("%s; asking again, %d of %d", error, number, self._config.retry.attempts)

    @contextmanager
    def _asking(self, operation: str, key: str, *, is_read: bool = True) -> Iterator[None]:
        """What goes wrong says what was asked of whom; of an object's own fault its row does."""
        try:
            with _translated(is_read=is_read):
                yield
        except BadInput as error:
            error.operation = operation
            raise
        except VidrayError as error:
            raise type(error)(f"{self.describe(key)}: {operation}: {error}") from error


class _Verbatim(str):
    """A name that minio takes as it is: of one with "." among its segments it says that is none."""

    def split(self, *how: Any) -> list[str]:
        return [str(self)]


class _VerbatimPaths(urllib3.PoolManager):
    """Sends paths as they are: urllib3 makes "a/b" of "a/./b", which is another, legal key.

    "%2E" is "." to the server, and signed as such.
    """

    def urlopen(self, method: str, url: str, *more: Any, **options: Any) -> BaseHTTPResponse:
        path, mark, query = url.partition("?")
        return super().urlopen(method, _DOT.sub("%2E", path) + mark + query, *more, **options)


def _length(response: BaseHTTPResponse) -> int:
    try:
        return int(response.headers["Content-Length"])
    except (KeyError, ValueError):
        raise StoreError("the store's answer does not say how long it is") from None


def _described(key: str, response: BaseHTTPResponse) -> ObjectInfo:
    modified = response.headers.get("Last-Modified")
    return ObjectInfo(
        key=key,
        size_bytes=_length(response),
        etag=response.headers.get("ETag", "").strip('"'),
        modified_s=from_http_header(modified).timestamp() if modified else 0.0,
    )


@contextmanager
def _translated(*, is_read: bool = True) -> Iterator[None]:
    """The one place where minio's and urllib3's exceptions become ours."""
    try:
        yield
    except S3Error as error:
        raise translate(error.response.status, error.code or "", is_read=is_read) from error
    except InvalidResponseError as error:  # a proxy's page instead of S3's XML
        raise translate(error._code, "", is_read=is_read) from error
    except ServerError as error:
        raise translate(error.status_code, "", is_read=is_read) from error
    except urllib3.exceptions.SSLError as error:
        raise StoreDenied(f"TLS refused: {error}") from error
    except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
        raise Transient(f"no whole answer from the store ({type(error).__name__})") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # of the file being copied into
            raise
        raise StoreFull("no space left for a copy of the object") from error
    except (MinioException, ValueError) as error:
        raise StoreError(f"the store's answer makes no sense ({type(error).__name__})") from error
