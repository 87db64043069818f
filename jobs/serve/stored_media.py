"""Videos of the operator's object store, where the operator lists buckets or prefixes of them.

Covered: only s3: urls below a listed place; no key with "..", "." or an empty segment, which some
stores resolve; one endpoint, that of AWS_*, whatever the url says; size and time are bounded, and
nothing of the store is said to who asked.
Not covered: every key holder may ask for everything below the listed places.
"""

import asyncio
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import IO, cast

from jobs.serve.refusals import remote_failed, remote_refused
from jobs.serve.uploads import Incoming, too_large
from pipeline.errors import BadInput, FailureCode, StoreFull, VidrayError
from pipeline.store.objects import check_path_key
from pipeline.store.open import S3_SCHEME, split_s3
from pipeline.store.retry import RetryPolicy
from pipeline.store.s3 import S3Store
from pipeline.store.s3_config import S3Config
from pipeline.threads import in_thread

SOON = RetryPolicy(attempts=4, deadline_s=20.0)  # somebody waits


def from_environment() -> S3Config:
    return replace(S3Config.from_environment(os.environ), retry=SOON)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMedia:
    """places: bucket, or bucket/prefix. config: is asked for when something is fetched."""

    places: tuple[str, ...] = ()
    max_bytes: int
    deadline_s: float = 120.0
    config: Callable[[], S3Config] = field(default=from_environment)

    async def fetch(self, url: str, file: Incoming) -> None:
        """Write what is there into the file. Refusal where it may not or cannot be had."""
        bucket, key = self._checked(url)
        sink = cast(IO[bytes], _Sink(file))
        try:
            async with asyncio.timeout(self.deadline_s):
                store = await in_thread(lambda: S3Store(bucket, "", self.config()))
                await in_thread(store.spool, key, sink, max_bytes=self.max_bytes)
        except TimeoutError:
            raise remote_failed("it comes too slowly") from None
        except BadInput as error:
            if error.code is FailureCode.TOO_MANY_BYTES:
                raise too_large(self.max_bytes) from None
            raise remote_failed("its store has no such object for us") from None
        except StoreFull:  # of our own disk
            raise
        except VidrayError:
            raise remote_failed("its store does not give it") from None

    def _checked(self, url: str) -> tuple[str, str]:
        """Bucket and key; Refusal for any that is not below a listed place."""
        try:
            bucket, key = split_s3(url)
            check_path_key(key)
        except VidrayError:
            raise remote_refused("this is no s3: url that is taken here") from None
        below = [each.removeprefix(S3_SCHEME).rstrip("/") + "/" for each in self.places]
        if not key.isprintable() or not any(f"{bucket}/{key}".startswith(each) for each in below):
            raise remote_refused("only s3: urls below listed places are taken")
        return bucket, key


class _Sink(io.RawIOBase):
    """An incoming file as a store writes it, in a thread of its own."""

    def __init__(self, file: Incoming) -> None:
        self._file = file

    def tell(self) -> int:
        return self._file.size_bytes

    def write(self, block: bytes) -> int:  # type: ignore[override]
        self._file.put(block)
        return len(block)
