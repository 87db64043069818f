"""Files that clients sent: bytes on disk under their sha256, and beside them whose they are.

Covered: a file is written as it comes and bounded by its size, not by what it says; no name of a
client's reaches the disk; what is no video is not kept; a file is its owner's alone; equal bytes
lie once.
Not covered: two processes that remove equal bytes, and take them in, at the same moment.
"""

import asyncio
import errno
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from jobs.serve.media_facts import media_facts
from jobs.serve.refusals import Refusal, not_found
from pipeline.config import DecodeLimits
from pipeline.errors import StoreFull
from pipeline.video.reader import probe
from pipeline.video.source import Source

PROBES_AT_ONCE = 2
WRITE_BYTES = 1 << 20  # to the disk at a time
MAX_NAME_CHARACTERS = 255
INLINE = "inline"  # the purpose of what a chat brought
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PICTURES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}
_ID = re.compile(r"file-[0-9a-f]{24}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file that a client sent. Times are Unix seconds."""

    id: str
    owner: str
    filename: str
    purpose: str
    size_bytes: int
    sha256: str
    created_at: int
    expires_at: int
    media: dict[str, Any]

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI has it, and what its header says."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size_bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "sha256": self.sha256,
            "media": self.media,
        }


_FACTS = TypeAdapter(Upload)


class Incoming:
    """A file that is being written. StoreFull where the disk has no room for it."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self.path = path
        self.size_bytes = 0
        self.digest = hashlib.sha256()
        self._max_bytes = max_bytes
        self._waiting: list[bytes] = []
        self._num_waiting = 0
        with _on_disk():
            self._file = path.open("xb")

    async def write(self, block: bytes) -> None:
        self._take(block)
        if self._num_waiting >= WRITE_BYTES:
            await asyncio.to_thread(self._flush)

    def put(self, block: bytes) -> None:
        """The same where waiting for the disk holds up nobody."""
        self._take(block)
        self._flush()

    async def close(self) -> None:
        await asyncio.to_thread(self._flush)
        with _on_disk():
            self._file.close()

    def discard(self) -> None:
        """Nothing stays; whoever took the file away before has it."""
        with suppress(OSError):  # of a full disk, once more
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _take(self, block: bytes) -> None:
        self.size_bytes += len(block)
        if self.size_bytes > self._max_bytes:
            raise too_large(self._max_bytes)
        self._waiting.append(block)
        self._num_waiting += len(block)

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._num_waiting = [], 0
        with _on_disk():
            self._file.write(data)
        self.digest.update(data)


class Uploads:
    """All files of one folder."""

    def __init__(
        self, folder: Path, *, max_bytes: int, keep_s: float, limits: DecodeLimits
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.keep_s = keep_s
        self._limits = limits
        self._probing = asyncio.Semaphore(PROBES_AT_ONCE)
        self._blobs_turn = threading.Lock()  # whether anybody has the same bytes is seen under it
        self._incoming, self._blobs, self._facts = (
            folder / name for name in ("incoming", "blobs", "files")
        )
        for each in (self._incoming, self._blobs, self._facts):
            each.mkdir(parents=True, exist_ok=True)

    def incoming(self) -> Incoming:
        """A new file; give it to `keep`, or discard it."""
        return Incoming(self._incoming / uuid4().hex, max_bytes=self.max_bytes)

    async def keep(
        self,
        file: Incoming,
        *,
        owner: str,
        filename: str,
        purpose: str,
        keep_s: float | None = None,
    ) -> Upload:
        """Take over a file that is whole; for less time if its client says so. BadInput if it is
        no video; StoreFull.
        """
        await file.close()
        sha256 = file.digest.hexdigest()
        async with self._probing:
            media = await asyncio.to_thread(probe, source_at(file.path, sha256), self._limits)
        now = int(time.time())
        # The same bytes inside a chat are the same file, however often they are sent.
        name = f"{owner}\0{sha256}" if purpose == INLINE else uuid4().hex
        upload = Upload(
            id=f"file-{hashlib.sha256(name.encode()).hexdigest()[:24]}",
            owner=owner,
            filename=filename[:MAX_NAME_CHARACTERS],
            purpose=purpose,
            size_bytes=file.size_bytes,
            sha256=sha256,
            created_at=now,
            expires_at=now + int(self.keep_s if keep_s is None else keep_s),
            media=media_facts(media),
        )
        await asyncio.to_thread(self._take_in, file.path, upload)
        return upload

    def get(self, upload_id: str, *, owner: str) -> Upload:
        """Refusal (404) for whoever else's, too."""
        upload = self._read(self._facts / upload_id) if _ID.fullmatch(upload_id) else None
        if upload is None or upload.owner != owner or upload.expires_at <= time.time():
            raise not_found("file")
        return upload

    def all_of(self, owner: str) -> list[Upload]:
        """The newest first; not those that came inside chats."""
        found = [
            upload
            for upload in self._all()
            if upload.owner == owner
            and upload.purpose != INLINE
            and upload.expires_at > time.time()
        ]
        return sorted(found, key=lambda upload: (-upload.created_at, upload.id))

    def path(self, upload: Upload) -> Path:
        """Where its bytes lie."""
        return self._blobs / upload.sha256

    def source(self, upload: Upload) -> Source:
        """Its bytes, to be read. Refusal (404) where they were removed meanwhile."""
        try:
            return source_at(self.path(upload), upload.sha256)
        except FileNotFoundError:
            raise not_found("file") from None

    def remove(self, upload: Upload) -> None:
        """May wait for the disk."""
        with self._blobs_turn:
            (self._facts / upload.id).unlink(missing_ok=True)
            if not any(other.sha256 == upload.sha256 for other in self._all()):
                self.path(upload).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what has expired, and what nobody finished sending."""
        now = time.time()
        for upload in self._all():
            if upload.expires_at <= now:
                self.remove(upload)
        for path in self._incoming.iterdir():
            try:
                if path.stat().st_mtime < now - self.keep_s:
                    path.unlink()
            except OSError:
                continue  # the others go all the same

    def _all(self) -> list[Upload]:
        found = (self._read(path) for path in self._facts.iterdir() if _ID.fullmatch(path.name))
        return [upload for upload in found if upload is not None]

    def _read(self, path: Path) -> Upload | None:
        """None where it is gone, is not ours to read, or holds something else: nobody's file."""
        try:
            return _FACTS.validate_json(path.read_bytes())
        except (FileNotFoundError, IsADirectoryError, PermissionError, ValidationError):
            return None

    def _take_in(self, path: Path, upload: Upload) -> None:
        part = self._incoming / f"{uuid4().hex}.json"
        try:
            with self._blobs_turn, _on_disk():
                part.write_text(json.dumps(asdict(upload)), "utf-8")
                path.replace(self.path(upload))  # for which a full disk has room
                part.replace(self._facts / upload.id)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StoreFull("no room left for a file that was sent") from error


def source_at(path: Path, sha256: str) -> Source:
    """Named by what its first bytes say it is: pictures are read under a picture's name only."""
    with path.open("rb") as file:
        head = file.read(8)
    suffix = next((name for magic, name in _PICTURES.items() if head.startswith(magic)), "")
    return Source(uri=f"upload{suffix}", path=path, etag=sha256)


def too_large(max_bytes: int, what: str = "a file") -> Refusal:
    return Refusal(413, "too_large", f"{what} has at most {max_bytes} bytes")
