"""What a tick takes: those videos of a listing whose version is not the newest that was taken."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from pipeline.store.items import Item
from pipeline.store.journal import Counts
from pipeline.store.seen import Seen, Versions

BLOCK = 8_192  # items that are compared at once


class Take:
    """One listing, compared with what was seen; counts are whole once it was read to its end.

    settled: what an earlier listing had to take; other versions are still being written. limit: of
    videos, the rest is left.
    """

    def __init__(
        self, seen: Seen, *, settled: Seen | None = None, limit: int | None = None
    ) -> None:
        self._seen = seen
        self._settled = settled
        self._limit = limit
        self._is_there = np.zeros(len(seen), np.bool_)
        self._listed = self._new = self._changed = self._unsettled = self._beyond = 0

    def of(self, listed: Iterable[Item]) -> Iterator[Item]:
        """The videos to take, in the listing's order."""
        return (item for item, _ in self.marked(listed))

    def marked(self, listed: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
        """The same, and whether each was never seen."""
        for item, is_new in self._differing(listed):
            if self._limit is not None and self._new + self._changed >= self._limit:
                self._beyond += 1
                continue
            self._new += is_new
            self._changed += not is_new
            yield item, is_new

    @property
    def counts(self) -> Counts:
        return Counts(
            listed=self._listed,
            new=self._new,
            changed=self._changed,
            unsettled=self._unsettled,
            beyond=self._beyond,
            deleted=int(np.count_nonzero(~self._is_there)),
        )

    def _differing(self, listed: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
        """Settled ones, and whether each was never seen."""
        for block, versions in _blocks(listed):
            self._listed += len(block)
            places, is_same = self._seen.look(versions)
            self._is_there[places[places >= 0]] = True
            is_taken = ~is_same
            if self._settled is not None:
                is_settled = self._settled.look(versions)[1]
                self._unsettled += int(np.count_nonzero(is_taken & ~is_settled))
                is_taken &= is_settled
            for index in np.flatnonzero(is_taken):
                yield block[index], bool(places[index] < 0)


def differing(listed: Iterable[Item], seen: Seen) -> Seen:
    """The versions of a listing that are not those seen."""
    kept = []
    for _, versions in _blocks(listed):
        is_other = ~seen.look(versions)[1]
        kept.append(Versions(versions.ids[is_other], versions.etags[is_other]))
    return Seen().with_later(kept)


def _blocks(listed: Iterable[Item]) -> Iterator[tuple[list[Item], Versions]]:
    stream = iter(listed)
    while block := list(islice(stream, BLOCK)):
        yield block, Versions.of(block)
