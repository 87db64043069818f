"""Where videos come from: a folder, s3://bucket/prefix, one file, a pattern, or a manifest.

Everything streams in an order that never varies; a million keys need no million objects.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

from pipeline.config import GIB
from pipeline.errors import BadInput, ConfigError, FailureCode, StoreDenied
from pipeline.store import manifest
from pipeline.store.items import Item
from pipeline.store.objects import ObjectInfo, ObjectStore
from pipeline.store.open import S3_SCHEME, open_store, split_s3
from pipeline.store.s3_config import S3Config

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
    ".vob", ".flv", ".wmv", ".asf", ".ogv", ".ogg", ".3gp", ".3g2", ".mxf",
)  # fmt: skip
MAX_MANIFEST_BYTES = 8 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFilter:
    """Which listed objects are videos of the job. A manifest is taken as it stands, but for limit.

    suffixes: lower case, compared without case. max_bytes None, limit None: no bound.
    """

    suffixes: tuple[str, ...] = VIDEO_SUFFIXES
    min_bytes: int = 0
    max_bytes: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit must be at least 1, got {self.limit}")
        if self.max_bytes is not None and self.max_bytes < self.min_bytes:
            raise ConfigError(f"sizes from {self.min_bytes} to {self.max_bytes} match nothing")

    def accepts(self, info: ObjectInfo) -> bool:
        is_small_enough = self.max_bytes is None or info.size_bytes <= self.max_bytes
        has_suffix = info.key.lower().endswith(self.suffixes)
        return has_suffix and is_small_enough and info.size_bytes >= self.min_bytes


def find_items(
    uri: str, source_filter: SourceFilter | None = None, *, s3: S3Config | None = None
) -> Iterator[Item]:
    """Every video under `uri`, as a stream. ConfigError when there is no such place."""
    chosen = source_filter or SourceFilter()
    items = _items(uri if uri.startswith(S3_SCHEME) else os.path.abspath(uri), chosen, s3)
    return islice(items, chosen.limit)


def locate(uri: str) -> tuple[str, str]:
    """Split an item's uri into its store's uri and its key there."""
    if uri.startswith(S3_SCHEME):
        bucket, key = split_s3(uri)
        return f"{S3_SCHEME}{bucket}", key
    return os.path.split(uri)


def _items(uri: str, chosen: SourceFilter, s3: S3Config | None) -> Iterator[Item]:
    store_uri, key = locate(uri)
    info = _head(open_store(store_uri, s3), key) if key else None
    if info is not None:  # one object; a name with "*" in it is a name first
        if uri.lower().endswith(manifest.SUFFIXES):
            return _manifest_items(uri, s3)
        return iter([Item(uri=uri, etag=info.etag, size_bytes=info.size_bytes)])
    base, pattern = _split_pattern(uri)
    if not base.startswith(S3_SCHEME) and not os.path.isdir(base):
        raise ConfigError(f"there is no folder or file {base}")
    return _listed_items(open_store(base, s3), pattern, chosen)


def _head(store: ObjectStore, key: str) -> ObjectInfo | None:
    try:
        return store.head(key)
    except BadInput as error:
        if error.code in (FailureCode.NOT_FOUND, FailureCode.NOT_A_REGULAR_FILE):
            return None
        raise StoreDenied(f"{store.uri}: {error.detail}") from error


def _listed_items(store: ObjectStore, pattern: str, chosen: SourceFilter) -> Iterator[Item]:
    matches = compile_glob(pattern)
    prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    for info in store.scan(prefix):
        if chosen.accepts(info) and matches.fullmatch(info.key):
            uri = f"{store.uri.rstrip('/')}/{info.key}"
            yield Item(uri=uri, etag=info.etag, size_bytes=info.size_bytes)


def _manifest_items(uri: str, s3: S3Config | None) -> Iterator[Item]:
    store_uri, key = locate(uri)
    folder = uri.rpartition("/")[0]

    def resolve(written: str) -> str:
        """Relative to the manifest. Only s3:// is a scheme; anything else is a plain path."""
        if written.startswith(S3_SCHEME):
            return written
        if folder.startswith(S3_SCHEME):
            return f"{folder}/{written}"
        return os.path.normpath(os.path.join(folder, written))

    with tempfile.TemporaryFile() as file:
        open_store(store_uri, s3).spool(key, file, max_bytes=MAX_MANIFEST_BYTES)
        file.seek(0)
        suffix = os.path.splitext(uri)[1].lower()
        name = os.path.basename(uri)
        yield from manifest.read_manifest(file, name=name, suffix=suffix, resolve=resolve)


def _split_pattern(uri: str) -> tuple[str, str]:
    """Folder and pattern: "/a/b/**/*.mp4" is "/a/b" and "**/*.mp4"; no pattern means all."""
    first = re.search(r"[*?\[]", uri)
    if first is None:
        return uri, "**"
    base, _, _ = uri[: first.start()].rpartition("/")
    return base or "/", uri[len(base) + 1 :]


@cache
def compile_glob(pattern: str) -> re.Pattern[str]:
    """A shell pattern over keys: * and ? stay within a folder, ** spans folders, [a-z] is a set."""
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|.", pattern, flags=re.DOTALL)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = [meaning.get(token) or _set_or_literal(token) for token in tokens]
    return re.compile("".join(parts), flags=re.DOTALL)


def _set_or_literal(token: str) -> str:
    if len(token) == 1:
        return re.escape(token)
    inner = token[1:-1].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
    return f"(?!/)[^{inner[1:]}]" if inner.startswith("!") else f"(?!/)[{inner}]"
