"""Whether an MP4 or QuickTime file holds more of a track than FFmpeg reads of it.

It reads the first movie of a file, and of fragments (ISO 14496-12, 8.8) those alone whose times go
on: where recordings are joined byte for byte, some or all of what follows is left out, unsaid.
"""

import os
from collections.abc import Iterator

from pipeline.video.iso_boxes import Extent, boxes, named_boxes

_MAX_FRAGMENTS = 1 << 18
_HAS_OFFSET, _HAS_FLAGS, _HAS_SIZES = 1, 4, 0x200  # of a run: what its header and entries hold
_FIELDS = (0x100, _HAS_SIZES, 0x400, 0x800)
_MAX_SAMPLES = 1 << 20  # of a run


def leaves_rest(fd: int, *, track: int, num_shown: int) -> bool:
    """track: its number as the file has it. num_shown: packets that FFmpeg does not discard."""
    num_movies = num_samples = 0
    whole = 0, os.fstat(fd).st_size
    for name, extent in named_boxes(fd, whole, limit=_MAX_FRAGMENTS):
        if name == b"moov":
            num_movies += any(True for _ in boxes(fd, extent, b"mvhd"))
        elif name == b"moof":
            num_samples += sum(_counts(fd, extent, track))
    return num_movies > 1 or num_samples > num_shown


def _counts(fd: int, moof: Extent, track: int) -> Iterator[int]:
    """How many samples each run of the track holds; empty ones are no packets."""
    for traf in boxes(fd, moof, b"traf"):
        for start, _ in boxes(fd, traf, b"tfhd"):
            if int.from_bytes(os.pread(fd, 4, start + 4), "big") == track:
                for run in boxes(fd, traf, b"trun"):
                    yield _count(fd, run)


def _count(fd: int, run: Extent) -> int:
    start, stop = run
    head = os.pread(fd, 8, start)
    flags, count = int.from_bytes(head[1:4], "big"), int.from_bytes(head[4:], "big")
    entry_bytes = 4 * sum(bool(flags & field) for field in _FIELDS)
    at = start + 8 + 4 * bool(flags & _HAS_OFFSET) + 4 * bool(flags & _HAS_FLAGS)
    if not flags & _HAS_SIZES or count > _MAX_SAMPLES or at + count * entry_bytes > stop:
        return 0 if count > _MAX_SAMPLES else count
    size_at = 4 * bool(flags & 0x100)
    entries = os.pread(fd, count * entry_bytes, at)
    return sum(
        any(entries[place + size_at : place + size_at + 4])
        for place in range(0, len(entries), entry_bytes)
    )
