"""The boxes of an MP4 or QuickTime file, read a header at a time (ISO 14496-12, 4.2)."""

import os
from collections.abc import Iterator

MAX_BOXES = 4096  # at one level

Extent = tuple[int, int]  # where a box's content starts and stops


def boxes(fd: int, within: Extent, name: bytes | None = None) -> Iterator[Extent]:
    """The boxes of this name, or all of them, that lie directly in an extent."""
    for _, extent in named_boxes(fd, within, name):
        yield extent


def named_boxes(
    fd: int, within: Extent, name: bytes | None = None, *, limit: int = MAX_BOXES
) -> Iterator[tuple[bytes, Extent]]:
    """The same, each with its name."""
    at, stop = within
    for _ in range(limit):
        header = os.pread(fd, 16, at)
        if at + 8 > stop or len(header) < 8:
            return
        size, start = int.from_bytes(header[:4], "big"), at + 8
        if size == 1 and len(header) == 16:
            size, start = int.from_bytes(header[8:], "big"), at + 16
        end = stop if size == 0 else min(at + max(size, 8), stop)
        if name is None or header[4:8] == name:
            yield header[4:8], (start, end)
        at = end


def video_tracks(fd: int) -> Iterator[Extent]:
    """The media (mdia) of each track of pictures."""
    for moov in boxes(fd, (0, os.fstat(fd).st_size), b"moov"):
        for trak in boxes(fd, moov, b"trak"):
            for mdia in boxes(fd, trak, b"mdia"):
                [*handlers] = boxes(fd, mdia, b"hdlr")
                if handlers and os.pread(fd, 4, handlers[0][0] + 8) == b"vide":
                    yield mdia


def sample_tables(fd: int, mdia: Extent) -> Iterator[Extent]:
    for minf in boxes(fd, mdia, b"minf"):
        yield from boxes(fd, minf, b"stbl")
