"""Whether an MP4 or QuickTime file stays in the codec it begins in (ISO 14496-12, 8.5.2).

Files that are joined box by box have a description for each part. Where the codec is another one,
FFmpeg leaves out, without a word, all that it describes; parts in one codec, of whatever size and
settings, are read. Not covered: fragments (moof).
"""

import os
import struct
from collections.abc import Iterator
from itertools import chain, islice, pairwise

from pipeline.errors import BadInput, FailureCode
from pipeline.video.iso_boxes import Extent, boxes, named_boxes, sample_tables, video_tracks

# The demuxer takes what follows one of these for the same: siblings of ProRes, DV, Avid, JPEG.
_OPEN = frozenset({b"apcn", b"apch", b"dvpp", b"dvcp", b"AV1x", b"jpeg"})
_MAX_TABLE_BYTES = 1 << 26


def require_one_codec(fd: int, *, index: int) -> None:
    """Raise BadInput(UNSUPPORTED_CODEC), with when, if the video track of this index changes it."""
    for mdia in islice(video_tracks(fd), index, index + 1):
        for table in sample_tables(fd, mdia):
            codecs = [
                name
                for start, stop in boxes(fd, table, b"stsd")
                for name, _ in named_boxes(fd, (start + 8, stop))
            ]
            if len({*codecs}) > 1:
                _require_one(fd, mdia, table, codecs)


def _require_one(fd: int, mdia: Extent, table: Extent, codecs: list[bytes]) -> None:
    first: bytes | None = None
    for sample, description in _runs(fd, table):
        codec = codecs[description - 1] if 0 < description <= len(codecs) else first
        first = codec if first is None else first
        if codec != first and first not in _OPEN:
            raise BadInput(
                FailureCode.UNSUPPORTED_CODEC,
                f"the video changes from {_shown(first)} to {_shown(codec)} at "
                f"{_time_s(fd, mdia, table, sample):.3f} s: cut the file there",
            )


def _runs(fd: int, table: Extent) -> Iterator[tuple[int, int]]:
    """From which sample on which description holds."""
    runs = _entries(fd, table, b"stsc", ">III")
    sample = 0
    for (chunk, per_chunk, description), (following, *_) in pairwise(chain(runs, [(0, 0, 0)])):
        yield sample, description
        sample += (following - chunk) * per_chunk


def _time_s(fd: int, mdia: Extent, table: Extent, sample: int) -> float:
    """When it is decoded, from the start of its track."""
    ticks = 0
    for count, duration in _entries(fd, table, b"stts", ">II"):
        ticks += min(count, sample) * duration
        sample -= min(count, sample)
    for start, _ in boxes(fd, mdia, b"mdhd"):
        is_wide = os.pread(fd, 1, start) == b"\1"
        scale = int.from_bytes(os.pread(fd, 4, start + (20 if is_wide else 12)), "big")
        return ticks / max(1, scale)
    return 0.0


def _entries(fd: int, table: Extent, name: bytes, layout: str) -> Iterator[tuple[int, ...]]:
    for start, stop in boxes(fd, table, name):
        size = struct.calcsize(layout)
        data = os.pread(fd, min(stop - start - 8, _MAX_TABLE_BYTES), start + 8)
        yield from struct.iter_unpack(layout, data[: len(data) // size * size])


def _shown(codec: bytes | None) -> str:
    text = (codec or b"").decode("latin-1").strip()
    return text if text.isprintable() and text.isascii() else (codec or b"").hex()
