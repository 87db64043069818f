"""What an S3 answer means: one table, one function."""

import re
from collections.abc import Callable

from pipeline.errors import (
    BadInput,
    ConfigError,
    FailureCode,
    ObjectRefused,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreMissing,
    Transient,
    VidrayError,
)


def _bad(code: FailureCode, detail: str) -> Callable[[str], VidrayError]:
    return lambda answer: BadInput(code, detail)


_NOT_FOUND = _bad(FailureCode.NOT_FOUND, "no such object")
_FORBIDDEN = _bad(FailureCode.FORBIDDEN, "reading is not permitted")
_CHANGED = _bad(FailureCode.SOURCE_CHANGED, "the object is not the one that was planned")
_EMPTY_FILE = _bad(FailureCode.EMPTY_FILE, "the object ends before the first byte asked for")

# S3's own word first: it tells a revoked key from a private object, and a missing bucket from a
# missing object, which share a status.
_BY_CODE: dict[str, Callable[[str], VidrayError]] = {
    **dict.fromkeys(
        [
            "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
            "TokenRefreshRequired", "RequestTimeTooSkewed", "AccountProblem",
            "AuthorizationHeaderMalformed",
        ],
        StoreDenied,
    ),
    **dict.fromkeys(["NoSuchBucket", "InvalidBucketName"], StoreMissing),
    **dict.fromkeys(["AllAccessDisabled", "PermanentRedirect"], StoreError),
    **dict.fromkeys(["QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"], StoreFull),
    # The upload arrived damaged or late, or another writer holds the key: the same bytes again.
    **dict.fromkeys(
        [
            "BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "OperationAborted",
            "ConditionalRequestConflict",
        ],
        Transient,
    ),
    "NotImplemented": ConfigError,  # a store that refuses If-None-Match
}  # fmt: skip
_BY_STATUS: dict[int, Callable[[str], VidrayError]] = {
    401: StoreDenied,
    403: StoreDenied,
    404: StoreError,
    408: Transient,
    425: Transient,
    429: Transient,
    501: ConfigError,
    507: StoreFull,
}
_BY_STATUS_READING: dict[int, Callable[[str], VidrayError]] = {
    403: _FORBIDDEN,
    404: _NOT_FOUND,
    412: _CHANGED,
    416: _EMPTY_FILE,
}


_HINTS = {
    "NoSuchBucket": ": there is no such bucket",
    "ExpiredToken": ": the session is over; keys that are renewed by themselves are those of roles",
    "PermanentRedirect": ": the bucket is in another region, which AWS_REGION says",
    "AuthorizationHeaderMalformed": ": is the bucket in another region? AWS_REGION says which",
    "RequestTimeTooSkewed": ": this machine's clock is wrong",
}


def translate(status: int, code: str, *, is_read: bool) -> VidrayError:
    """The error for an HTTP status and S3's error code ("" when it sent none).

    is_read: a single object was asked for, so a refusal is that object's fault, not the job's.
    ObjectRefused where it may be either's, as with a key that this store has no place for.
    """
    kind = _BY_CODE.get(code)
    if kind is None and is_read:
        kind = _BY_STATUS_READING.get(status)
    if kind is None:
        refused = ObjectRefused if is_read else StoreError
        kind = _BY_STATUS.get(status, Transient if status >= 500 else refused)
    return kind(f"the store answered {status} {code}".rstrip() + _HINTS.get(code, ""))


def error_code(body: bytes) -> str:
    """S3's error code in an XML answer, or ""."""
    found = re.search(rb"<Code>(\w{1,64})</Code>", body[:4096])
    return found[1].decode() if found else ""
