"""Which version of which video was taken last: sixteen bytes a video, however long its name."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.store.items import Item
from pipeline.store.parquet import read_table, to_bytes

Digests = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Versions:
    """Videos and their etags, (N,) each, as the first eight bytes of their digests."""

    ids: Digests
    etags: Digests

    @classmethod
    def of(cls, items: Sequence[Item]) -> "Versions":
        return cls(digests(item.video_id for item in items), digests(item.etag for item in items))


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest version of each video, or whatever else is known of it; ids ascend, each once."""

    ids: Digests = field(default_factory=lambda: digests([]))
    etags: Digests = field(default_factory=lambda: digests([]))

    def __len__(self) -> int:
        return len(self.ids)

    def look(self, versions: Versions) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Of each: its place here, -1 for a video never seen; and whether it is this version."""
        if not len(self.ids):
            return np.full(len(versions.ids), -1), np.zeros(len(versions.ids), np.bool_)
        places = np.minimum(np.searchsorted(self.ids, versions.ids), len(self.ids) - 1)
        is_known = self.ids[places] == versions.ids
        is_same = is_known & (self.etags[places] == versions.etags)
        return np.where(is_known, places, -1), is_same

    def find(self, ids: Digests) -> Digests:
        """What is known of each; 0 of one that is not here."""
        places, _ = self.look(Versions(ids, ids))
        return np.where(places < 0, 0, self.etags[places]) if len(self) else np.zeros_like(ids)

    def with_later(self, later: Sequence[Versions]) -> "Seen":
        """These too; of a video that is there several times the last one counts."""
        ids = np.concatenate([self.ids, *(each.ids for each in later)])
        etags = np.concatenate([self.etags, *(each.etags for each in later)])
        order = np.argsort(ids, kind="stable")
        ids, etags = ids[order], etags[order]
        is_last = np.append(ids[1:] != ids[:-1], np.True_)[: len(ids)]
        return Seen(ids[is_last], etags[is_last])

    def to_bytes(self) -> bytes:
        return to_bytes(pa.table({"id": self.ids, "etag": self.etags}))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Seen":
        """ValueError for what is none."""
        table = read_table(data, ["id", "etag"])
        return cls(table["id"].to_numpy(), table["etag"].to_numpy())


def digests(texts: Iterable[str | None]) -> Digests:
    """Eight bytes of each; 0 of None, an etag that nobody knows."""
    return np.fromiter(map(_digest, texts), np.uint64)


def _digest(text: str | None) -> int:
    if text is None:
        return 0
    data = text.encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())
