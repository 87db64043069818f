"""What of each coded picture a player shows: clean aperture (ISO) and cropping (Matroska).

FFmpeg hands it to its own program only. Read from the file itself, a header at a time; what makes
no sense crops nothing.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.video.iso_boxes import Extent, boxes, sample_tables, video_tracks

MAX_ELEMENTS = 4096  # at one level
_MAX_FIELD_BYTES = 8


@dataclass(frozen=True, slots=True)
class Margins:
    """Pixels to leave out on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def fits(self, width: int, height: int) -> bool:
        sides = (self.left, self.top, self.right, self.bottom)
        leaves_some = self.left + self.right < width and self.top + self.bottom < height
        return min(sides) >= 0 and leaves_some


def margins_of(fd: int, demuxer: str, *, index: int) -> Margins:
    """The margins of the file's video track of this index; none where it does not say."""
    margins = {"mov": _mov_tracks, "matroska": _matroska_tracks}.get(demuxer)
    if margins is None:
        return Margins()
    for place, found in enumerate(margins(fd)):
        if place == index:
            return found
    return Margins()


def _mov_tracks(fd: int) -> Iterator[Margins]:
    for mdia in video_tracks(fd):
        yield _clean_aperture(fd, mdia)


def _clean_aperture(fd: int, mdia: Extent) -> Margins:
    for table in sample_tables(fd, mdia):
        for start, stop in boxes(fd, table, b"stsd"):
            for entry, end in boxes(fd, (start + 8, stop)):
                width, height = struct.unpack(">HH", os.pread(fd, 4, entry + 24).ljust(4, b"\0"))
                for clap, _ in boxes(fd, (entry + 78, end), b"clap"):
                    return _centred(os.pread(fd, 32, clap), width, height)
    return Margins()


def _centred(clap: bytes, width: int, height: int) -> Margins:
    """Width, height and offset of the centre as fractions (ISO 14496-12, 12.1.4)."""
    if len(clap) < 32:
        return Margins()
    values = struct.unpack(">IIIIiIiI", clap)
    if 0 in values[1::2]:
        return Margins()
    wide, high, right, down = (n / d for n, d in zip(values[::2], values[1::2], strict=True))
    left, top = round((width - wide) / 2 + right), round((height - high) / 2 + down)
    return Margins(left, top, width - left - round(wide), height - top - round(high))


_SEGMENT, _TRACKS, _ENTRY, _TYPE, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0x83, 0xE0
_CROPS = {0x54CC: "left", 0x54BB: "top", 0x54DD: "right", 0x54AA: "bottom"}


def _matroska_tracks(fd: int) -> Iterator[Margins]:
    for segment in _elements(fd, (0, os.fstat(fd).st_size), _SEGMENT):
        for tracks in _elements(fd, segment, _TRACKS):
            for entry in _elements(fd, tracks, _ENTRY):
                if [_number(fd, kind) for kind in _elements(fd, entry, _TYPE)] != [1]:
                    continue
                sides = {
                    side: _number(fd, found)
                    for video in _elements(fd, entry, _VIDEO)
                    for number, side in _CROPS.items()
                    for found in _elements(fd, video, number)
                }
                yield Margins(**sides)
            return


def _elements(fd: int, within: Extent, wanted: int) -> Iterator[Extent]:
    """The EBML elements of this number that lie directly in an extent."""
    at, stop = within
    for _ in range(MAX_ELEMENTS):
        header = os.pread(fd, 12, at)
        if at >= stop or len(header) < 2 or not header[0]:
            return
        id_bytes = 9 - header[0].bit_length()
        size_bytes = 9 - header[id_bytes].bit_length() if id_bytes < len(header) else 9
        if id_bytes > 4 or size_bytes > 8 or id_bytes + size_bytes > len(header):
            return
        number = int.from_bytes(header[:id_bytes], "big")
        size = int.from_bytes(header[id_bytes : id_bytes + size_bytes], "big")
        size -= 1 << 7 * size_bytes
        start = at + id_bytes + size_bytes
        is_unknown = size == (1 << 7 * size_bytes) - 1
        end = stop if is_unknown else min(start + size, stop)
        if number == wanted:
            yield start, end
        at = end


def _number(fd: int, extent: Extent) -> int:
    start, stop = extent
    return int.from_bytes(os.pread(fd, min(stop - start, _MAX_FIELD_BYTES), start), "big")
