"""What vidray asks of an object store. Two stand behind it: a local folder and S3.

A key is a relative path of UTF-8 text, verbatim: NFC and NFD spellings are two keys.
Reading raises BadInput when the object is at fault (missing, forbidden, changed, too big, not a
file); every other refusal is a StoreError; Transient means the store's own retries ran out.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol

from pipeline.config import MIB
from pipeline.errors import BadInput, ConfigError, FailureCode, StoreCorrupt, StoreDenied

MAX_KEY_BYTES = 1024  # what S3 allows
PROBE_KEY = "probe"


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


def check_key(key: str) -> str:
    """Return `key`, or raise BadInput(NOT_FOUND): such an object can exist in no store."""
    segments = key.split("/")
    try:
        too_long = len(key.encode()) > MAX_KEY_BYTES
    except UnicodeEncodeError:
        raise BadInput(FailureCode.NOT_FOUND, "the key is not valid UTF-8") from None
    if too_long or "\0" in key or any(segment in ("", ".", "..") for segment in segments):
        raise BadInput(FailureCode.NOT_FOUND, f"{key[:80]!r} is no object key")
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
        kind = StoreDenied if error.code is FailureCode.FORBIDDEN else StoreCorrupt
        raise kind(f"{store.uri}: {key}: {error.detail}") from error


def probe(store: ObjectStore) -> None:
    """Refuse a store that replaces objects: create-only is what the commit protocol stands on.

    The probe object stays, so two drivers probing at once only confirm each other.
    """
    store.put_new(PROBE_KEY, b"vidray asks whether this store honours create-only puts\n")
    if store.put_new(PROBE_KEY, b"it does not: this second put replaced the first\n"):
        raise ConfigError(f"{store.uri} ignores create-only puts (If-None-Match); jobs need them")


def too_many_bytes(size_bytes: int, max_bytes: int) -> BadInput:
    return BadInput(FailureCode.TOO_MANY_BYTES, f"at least {size_bytes} bytes; limit {max_bytes}")


def source_changed() -> BadInput:
    return BadInput(FailureCode.SOURCE_CHANGED, "the object is not the one that was planned")
