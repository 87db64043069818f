"""What an S3 answer means is one table; these are its rows that must never move."""

import pytest

from pipeline.errors import (
    BadInput,
    ConfigError,
    FailureCode,
    ObjectRefused,
    StoreCorrupt,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreMissing,
    Transient,
    VidrayError,
)
from pipeline.store.objects import find
from pipeline.store.s3_errors import error_code, translate
from tests.stores import MemoryStore


@pytest.mark.parametrize(
    ("status", "code", "reading", "writing"),
    [
        (404, "NoSuchKey", FailureCode.NOT_FOUND, StoreError),
        (404, "NoSuchBucket", StoreMissing, StoreMissing),
        (403, "AccessDenied", FailureCode.FORBIDDEN, StoreDenied),
        (403, "", FailureCode.FORBIDDEN, StoreDenied),
        (403, "InvalidAccessKeyId", StoreDenied, StoreDenied),
        (403, "SignatureDoesNotMatch", StoreDenied, StoreDenied),
        (400, "ExpiredToken", StoreDenied, StoreDenied),
        (412, "PreconditionFailed", FailureCode.SOURCE_CHANGED, StoreError),
        (416, "InvalidRange", FailureCode.EMPTY_FILE, StoreError),
        (400, "BadDigest", Transient, Transient),
        (400, "RequestTimeout", Transient, Transient),
        (408, "", Transient, Transient),
        (409, "ConditionalRequestConflict", Transient, Transient),
        (429, "", Transient, Transient),
        (500, "InternalError", Transient, Transient),
        (502, "", Transient, Transient),
        (503, "SlowDown", Transient, Transient),
        (501, "NotImplemented", ConfigError, ConfigError),
        (507, "", StoreFull, StoreFull),
        (403, "QuotaExceeded", StoreFull, StoreFull),
        (400, "InvalidRequest", ObjectRefused, StoreError),
        (301, "PermanentRedirect", StoreError, StoreError),
    ],
)
def test_an_answer_means_the_same_everywhere(
    status: int,
    code: str,
    reading: FailureCode | type[VidrayError],
    writing: type[VidrayError],
) -> None:
    error = translate(status, code, is_read=True)
    assert (error.code if isinstance(error, BadInput) else type(error)) == reading
    assert type(translate(status, code, is_read=False)) is writing


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<?xml?><Error><Code>SlowDown</Code></Error>", "SlowDown"),
        (b"<h1>Bad gateway</h1>", ""),
        (b"", ""),
        (b"<Code>" + b"x" * 10_000 + b"</Code>", ""),
    ],
)
def test_an_error_code_is_read_from_any_body(body: bytes, code: str) -> None:
    assert error_code(body) == code


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (FailureCode.FORBIDDEN, StoreDenied),
        (FailureCode.NOT_A_REGULAR_FILE, StoreCorrupt),
        (FailureCode.TOO_MANY_BYTES, StoreCorrupt),
    ],
)
def test_a_fault_in_the_jobs_own_objects_is_never_a_videos(
    fault: FailureCode, kind: type[StoreError]
) -> None:
    class Refusing(MemoryStore):
        def spool(self, key, file, *, max_bytes, etag=None):
            raise BadInput(fault, "no")

    with pytest.raises(kind, match="memory: plan.json"):
        find(Refusing(), "plan.json")
