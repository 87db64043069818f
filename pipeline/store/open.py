"""From a uri to a store."""

from pipeline.errors import ConfigError
from pipeline.store.local import LeftOut, LocalStore
from pipeline.store.objects import ObjectStore
from pipeline.store.s3 import S3Store
from pipeline.store.s3_config import S3Config

S3_SCHEME = "s3://"


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and the rest of s3://bucket/rest, verbatim: S3 keys are not percent-encoded."""
    bucket, _, rest = uri.removeprefix(S3_SCHEME).partition("/")
    if not bucket:
        raise ConfigError(f"{uri!r} names no bucket; write s3://bucket/prefix")
    return bucket, rest


def open_store(
    uri: str, s3: S3Config | None = None, *, left_out: LeftOut | None = None
) -> ObjectStore:
    """The store at s3://bucket/prefix, or in a local folder (everything else is a path).

    left_out: as LocalStore explains it.
    """
    if not uri.startswith(S3_SCHEME):
        return LocalStore(uri, left_out=left_out)
    bucket, prefix = split_s3(uri)
    return S3Store(bucket, prefix, s3 or S3Config())
