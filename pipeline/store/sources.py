"""Where videos come from: a folder, s3://bucket/prefix, one file, a pattern, or a manifest.

Everything streams in an order that never varies; a million keys need no million objects.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

from pipeline.config import GIB
from pipeline.errors import BadInput, ConfigError, FailureCode, StoreDenied
from pipeline.settings import shown
from pipeline.store import manifest
from pipeline.store.items import Item
from pipeline.store.links import followed
from pipeline.store.local import LINKED, LeftOut
from pipeline.store.objects import ObjectInfo, ObjectStore, describe_fault
from pipeline.store.open import S3_SCHEME, open_store, split_s3
from pipeline.store.passed_over import PassedOver, type_of
from pipeline.store.s3_config import S3Config

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
    ".vob", ".flv", ".wmv", ".asf", ".ogv", ".ogg", ".3gp", ".3g2", ".mxf",
)  # fmt: skip
UNREADABLE = "unreadable folder"
MAX_MANIFEST_BYTES = 8 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFilter:
    """Which listed objects are videos of the job. A manifest is taken as it stands, but for limit.

    suffixes: lower case, compared without case. max_bytes None, limit None: no bound. hidden: names
    that begin with a dot, of files and of folders, too. link_roots: folders that symlinks may lead
    to; none is no bound.
    """

    suffixes: tuple[str, ...] = VIDEO_SUFFIXES
    min_bytes: int = 0
    max_bytes: int | None = None
    limit: int | None = None
    hidden: bool = True  # as jobs were before they could say so
    link_roots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit must be at least 1, got {self.limit}")
        if self.max_bytes is not None and self.max_bytes < self.min_bytes:
            raise ConfigError(f"sizes from {self.min_bytes} to {self.max_bytes} match nothing")

    def objection(self, info: ObjectInfo) -> str | None:
        """What kind of file this is, where it is none of the job's videos."""
        if not self.hidden and "/." in f"/{info.key}":
            return "hidden"
        if not info.key.lower().endswith(self.suffixes):
            return type_of(info.key)
        if info.size_bytes < self.min_bytes:
            return "too small"
        if self.max_bytes is not None and info.size_bytes > self.max_bytes:
            return "too large"
        return None


def find_items(
    uri: str,
    source_filter: SourceFilter | None = None,
    *,
    s3: S3Config | None = None,
    passed_over: PassedOver | None = None,
    left_out: Callable[[str], None] | None = None,
) -> Iterator[Item]:
    """Every video under `uri`, as a stream. ConfigError when there is no such place.

    passed_over: counts what is listed on the way and not taken. A pattern passes over what it names
    only, a manifest nothing. left_out: hears of folders that cannot be looked into; they are passed
    over too, and end the listing without it.
    """
    chosen = source_filter or SourceFilter()
    left = PassedOver() if passed_over is None else passed_over
    return islice(_items(absolute(uri), chosen, s3, left, left_out), chosen.limit)


def absolute(uri: str) -> str:
    """A source as its job names it, wherever that is run. ConfigError for what is none."""
    if is_link(uri) and not os.path.exists(uri):
        raise ConfigError(f"{uri} is neither a path nor s3://bucket/key; fetch it first")
    return uri if uri.startswith(S3_SCHEME) else os.path.abspath(uri)


def require_apart(source: str, out: str) -> None:
    """ConfigError if rows would be written among the videos, or videos stand among the rows.

    Links are followed. Beside the files that a pattern within one folder names there is room.
    """
    base, pattern = _split_pattern(absolute(source))
    place, out_place = _place(source if pattern == "**" else base), _place(out)
    if place.startswith(out_place):
        raise ConfigError(f"the source {source} is inside the output {out}; choose another output")
    if out_place.startswith(place) and "**" in pattern:
        raise ConfigError(f"the output {out} is inside the source {source}; choose another output")


def _place(uri: str) -> str:
    """A prefix of all that lies there."""
    resolved = uri if uri.startswith(S3_SCHEME) else os.path.realpath(uri)
    return f"{resolved.rstrip('/')}/"


def locate(uri: str) -> tuple[str, str]:
    """Split an item's uri into its store's uri and its key there."""
    if uri.startswith(S3_SCHEME):
        bucket, key = split_s3(uri)
        return f"{S3_SCHEME}{bucket}", key
    return os.path.split(uri)


def _items(
    uri: str,
    chosen: SourceFilter,
    s3: S3Config | None,
    passed_over: PassedOver,
    left_out: Callable[[str], None] | None,
) -> Iterator[Item]:
    store_uri, key = locate(uri)
    info = _head(uri, s3) if key else None
    if info is not None:  # one object; a name with "*" in it is a name first
        if uri.lower().endswith(manifest.SUFFIXES):
            return _manifest_items(uri, s3)
        return iter([Item(uri=uri, etag=info.etag, size_bytes=info.size_bytes)])
    base, pattern = _split_pattern(uri)
    if not base.startswith(S3_SCHEME) and not os.path.isdir(base):
        raise ConfigError(f"there is no folder or file {base}")
    hears = left_out and _hearing_of(base, pattern, passed_over, left_out)
    store = open_store(base, s3, left_out=hears)
    return _listed_items(store, pattern, chosen, passed_over)


def _hearing_of(
    base: str, pattern: str, passed_over: PassedOver, left_out: Callable[[str], None]
) -> LeftOut:
    """Of folders in which the pattern names something; a link is listed, and counted as that."""

    def hear(folder: str, why: str) -> None:
        depth = folder[len(base) :].strip("/").count("/")
        if "**" in pattern or depth < pattern.count("/"):
            left_out(f"{folder}: {why}")
            if why != LINKED:
                passed_over.add(UNREADABLE)

    return hear


def _head(uri: str, s3: S3Config | None) -> ObjectInfo | None:
    """Of one object or file, a link's end too; None where there is none."""
    try:
        store_uri, key = locate(uri if uri.startswith(S3_SCHEME) else followed(uri))
    except BadInput:
        return None
    store = open_store(store_uri, s3)
    try:
        return store.head(key)
    except BadInput as error:
        if error.code in (FailureCode.NOT_FOUND, FailureCode.NOT_A_REGULAR_FILE):
            return None
        raise StoreDenied(describe_fault(store, key, error)) from error


def _listed_items(
    store: ObjectStore, pattern: str, chosen: SourceFilter, passed_over: PassedOver
) -> Iterator[Item]:
    matches = compile_glob(pattern)
    prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    for info in store.scan(prefix):
        if not matches.fullmatch(info.key):
            continue
        if objection := chosen.objection(info):
            passed_over.add(objection)
        else:
            uri = f"{store.uri.rstrip('/')}/{info.key}"
            yield Item(uri=uri, etag=info.etag, size_bytes=info.size_bytes)


def _manifest_items(uri: str, s3: S3Config | None) -> Iterator[Item]:
    store_uri, key = locate(uri)
    folder = uri.rpartition("/")[0]

    def resolve(written: str) -> str:
        """Relative to the manifest. Only s3:// is a scheme: ValueError for any other link."""
        if written.startswith(S3_SCHEME):
            return written
        if is_link(written):
            raise ValueError(f"uri must be a path or s3://bucket/key, got {shown(written)}")
        if folder.startswith(S3_SCHEME):
            return f"{folder}/{written}"
        return os.path.normpath(os.path.join(folder, written))

    with tempfile.TemporaryFile() as file:
        open_store(store_uri, s3).spool(key, file, max_bytes=MAX_MANIFEST_BYTES)
        file.seek(0)
        suffix = os.path.splitext(uri)[1].lower()
        name = os.path.basename(uri)
        yield from manifest.read_manifest(file, name=name, suffix=suffix, resolve=resolve)


def is_link(written: str) -> bool:
    """Whether it names a place that is neither a path nor in S3: http://, gs://, file://."""
    return re.match(r"(?!s3:)[a-z][a-z0-9+.-]*://", written, re.IGNORECASE) is not None


def _split_pattern(uri: str) -> tuple[str, str]:
    """Folder and pattern: "/a/b/**/*.mp4" is "/a/b" and "**/*.mp4"; no pattern means all.

    A folder that is there is meant by its name: "/a/[b]" is all that is in it.
    """
    names = uri.split("/")
    for index, name in enumerate(names):
        is_pattern = re.search(r"[*?\[]", name) is not None
        if is_pattern and not os.path.isdir("/".join(names[: index + 1])):
            return "/".join(names[:index]) or "/", "/".join(names[index:])
    return uri, "**"


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
