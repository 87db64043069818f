"""What vidray asks of an object store. Two stand behind it: a local folder and S3.

A key is a relative path, verbatim: NFC and NFD spellings are two keys. In S3 it is UTF-8 text; a
folder may hold any bytes, as pipeline.names carries them.
Reading raises BadInput when the object is at fault (missing, forbidden, changed, too big, not a
file); every other refusal is a StoreError; Transient means the store's own retries ran out.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol

from pipeline.config import MIB
from pipeline.errors import (
    BadInput,
    FailureCode,
    StoreCorrupt,
    StoreDenied,
    StoreError,
)

MAX_KEY_BYTES = 1024  # what S3 allows


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object as a listing shows it. etag changes when the bytes do; modified_s is Unix time."""

    key: str
    size_bytes: int
    etag: str
    modified_s: float


class ObjectStore(Protocol):
    """A flat set of immutable objects under one uri. Safe to share between threads."""

    @property
    def uri(self) -> str:
        """Where the store is, for people: a folder, or s3://bucket/prefix."""
        ...

    def describe(self, key: str) -> str:
        """Where an object is and how it is reached, for people."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """Describe one object without reading it."""
        ...

    def get_range(self, key: str, *, start: int, stop: int, etag: str | None = None) -> bytes:
        """Read bytes [start, stop); shorter only where the object ends. etag: refuse any other."""
        ...

    def spool(
        self, key: str, file: IO[bytes], *, max_bytes: int, etag: str | None = None
    ) -> ObjectInfo:
        """Copy the whole object into `file`, never more than max_bytes, and say what was read."""
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Create `key` whole, or not at all; never replace. False: an object is there already.

        After a lost answer the retry finds this call's own object and says False: whoever needs to
        know reads it back. Transient leaves the outcome unknown; the same call may be repeated.
        """
        ...

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, in an order that never varies, streamed."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; absent is fine. Only fsck calls this."""
        ...

    def move(self, key: str, to: str) -> None:
        """Give an object another name, one that nothing has, whatever is in it. Only fsck does."""
        ...


def check_key(key: str, *, errors: str = "strict") -> str:
    """Return `key`, or raise BadInput(NOT_FOUND): such an object is read from no store.

    ".." is legal in S3, but there are stores that would leave the bucket with it.
    errors: surrogateescape for a store whose names need not be UTF-8.
    """
    try:
        size_bytes = len(key.encode(errors=errors))
    except UnicodeEncodeError:
        raise BadInput(FailureCode.NOT_FOUND, "the key is not valid UTF-8") from None
    if not 1 <= size_bytes <= MAX_KEY_BYTES or "\0" in key or ".." in key.split("/"):
        raise BadInput(FailureCode.NOT_FOUND, f"{key[:80]!r} is no object key")
    return key


def check_path_key(key: str, *, errors: str = "strict") -> str:
    """The same where a key is a path: a bucket may hold "a//b" and "a/./b", a folder may not."""
    if any(segment in ("", ".") for segment in check_key(key, errors=errors).split("/")):
        raise BadInput(FailureCode.NOT_FOUND, f"{key[:80]!r} is no path below a folder")
    return key


def get(store: ObjectStore, key: str, *, max_bytes: int, etag: str | None = None) -> bytes:
    """Read a whole object into memory; BadInput(TOO_MANY_BYTES) beyond max_bytes."""
    buffer = io.BytesIO()
    store.spool(key, buffer, max_bytes=max_bytes, etag=etag)
    return buffer.getvalue()


def find(store: ObjectStore, key: str, *, max_bytes: int = 64 * MIB) -> bytes | None:
    """Read one of the job's own objects, or None where there is none.

    What would be a video's fault in an archive is the store's here: StoreDenied, StoreCorrupt.
    """
    try:
        return get(store, key, max_bytes=max_bytes)
    except BadInput as error:
        if error.code is FailureCode.NOT_FOUND:
            return None
        raise _as_stores_fault(store, key, error) from error


def exists(store: ObjectStore, key: str) -> bool:
    """Whether one of the job's own objects is there."""
    try:
        store.head(key)
    except BadInput as error:
        if error.code is FailureCode.NOT_FOUND:
            return False
        raise _as_stores_fault(store, key, error) from error
    return True


def _as_stores_fault(store: ObjectStore, key: str, error: BadInput) -> StoreError:
    kind = StoreDenied if error.code is FailureCode.FORBIDDEN else StoreCorrupt
    return kind(describe_fault(store, key, error))


def describe_fault(store: ObjectStore, key: str, error: BadInput) -> str:
    """A fault of an object that is no video's: where it is, what was asked, what was answered."""
    return ": ".join(filter(None, [store.describe(key), error.operation, error.detail]))


def too_many_bytes(size_bytes: int, max_bytes: int) -> BadInput:
    return BadInput(FailureCode.TOO_MANY_BYTES, f"at least {size_bytes} bytes; limit {max_bytes}")


def source_changed() -> BadInput:
    return BadInput(FailureCode.SOURCE_CHANGED, "the object is not the one that was planned")
