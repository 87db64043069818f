"""What a transport stream says that it carries, and whether to its end (ISO 13818-1, 2.4.4.8).

Recordings that are joined, or of a channel that changed, may go on under the same number in another
codec. FFmpeg gives such pictures to the decoder of either: of the wrong one garbage comes out, or
stamps of the wrong parser. Covered: tables within one packet, as nearly all are. Not covered:
streams that change without saying so; there the decoder complains.
"""

import os
import zlib
from collections.abc import Iterator
from functools import lru_cache

from pipeline.errors import BadInput, FailureCode

_BLOCK_BYTES = 1 << 20
_PACKET_BYTES = 188
_HEAD_BYTES = 4
_TABLE = b"\x00\x02\xb0"  # where a packet begins with one: no bytes before, its id, its flags
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_WHOLE = 0xFFFFFFFF  # what zlib's sum of bytes in reverse is if the table's own sum fits
_MPEG1, _MPEG2 = 1, 2  # told apart by their streams, whatever the table says
_NAMES = {_MPEG2: "MPEG-2", 0x10: "MPEG-4", 0x1B: "H.264", 0x24: "HEVC"}


def count_videos(fd: int, *, pid: int) -> int:
    """How many streams of the file are videos, now or later, as far as its tables say.

    Raises BadInput(UNSUPPORTED_CODEC) where the stream of this number changes its codec.
    """
    first: int | None = None
    videos: set[int] = set()
    for at, table in _tables(fd):
        kinds = _kinds(table)
        kind = kinds.get(pid)
        if first is None:
            first = kind
        elif kind not in (None, first):
            raise BadInput(
                FailureCode.UNSUPPORTED_CODEC,
                f"the video changes from {_name(first)} to {_name(kind)} at byte {at}: "
                "cut the file there",
            )
        videos.update(other for other, kind in kinds.items() if kind in _NAMES)
    return len(videos)


def _tables(fd: int) -> Iterator[tuple[int, bytes]]:
    """What looks like a table of a program, and where its packet begins."""
    start = 0
    while len(block := os.pread(fd, _BLOCK_BYTES, start)) > _PACKET_BYTES:
        at = block.find(_TABLE, _HEAD_BYTES)
        while at >= 0 and at - _HEAD_BYTES + _PACKET_BYTES <= len(block):
            head = block[at - _HEAD_BYTES : at]
            if head[0] == 0x47 and head[1] & 0x40 and head[3] & 0x30 == 0x10:
                end = at - _HEAD_BYTES + _PACKET_BYTES
                yield start + at - _HEAD_BYTES, block[at + 1 : end]
            at = block.find(_TABLE, at + 1)
        start += len(block) - _PACKET_BYTES


@lru_cache(maxsize=64)  # the same ten times a second
def _kinds(table: bytes) -> dict[int, int]:
    """The kind of each stream, by its number; none where this is no table that is in force."""
    table = table[: 3 + (int.from_bytes(table[1:3], "big") & 0xFFF)]
    is_whole = zlib.crc32(table.translate(_REVERSED)) == _WHOLE
    if len(table) < 16 or not is_whole or not table[5] & 1:
        return {}
    kinds: dict[int, int] = {}
    at = 12 + (int.from_bytes(table[10:12], "big") & 0xFFF)
    while at + 5 <= len(table) - 4:
        kind, pid = table[at], int.from_bytes(table[at + 1 : at + 3], "big") & 0x1FFF
        kinds[pid] = _MPEG2 if kind == _MPEG1 else kind
        at += 5 + (int.from_bytes(table[at + 3 : at + 5], "big") & 0xFFF)
    return kinds


def _name(kind: int | None) -> str:
    return _NAMES.get(kind or 0, f"stream type {kind}")
