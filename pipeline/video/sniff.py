"""What a file is, by its first bytes, and whether it ends where its own header says.

Covered: only containers on the list reach FFmpeg, each with the demuxer named here: no playlist,
script or image is probed, whatever its name says.
Not covered: a well-formed structure with hostile content; that is what the child process is for.
"""

import os
import struct
from pathlib import PurePosixPath

from pipeline.errors import BadInput, FailureCode

HEAD_BYTES = 4096
TS_PACKETS = (188, 192, 204)  # plain; with the time of arrival (Blu-ray); with parity (DVB)

_SYNCS = 5  # so many in step are no accident
_BOXES = frozenset(
    {
        *(b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"uuid"),
        *(b"moof", b"sidx", b"ssix", b"prft", b"emsg", b"meta", b"mfra", b"pdin", b"udta"),
    }
)
_MAGIC = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"DKIF", "ivf"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
    (b"FLV\x01", "flv"),
    (b"0&\xb2u\x8ef\xcf\x11", "asf"),
    (b"OggS", "ogg"),
    (b"\x06\x0e+4\x02\x05\x01\x01\r\x01\x02", "mxf"),
)
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "png_pipe", (".png",)),
    (b"\xff\xd8\xff", "jpeg_pipe", (".jpg", ".jpeg")),
)
_KNOWN_BUT_REFUSED = (
    (b"GIF8", "GIF"),
    (b".RMF", "RealMedia"),
    (b"ID3", "MP3"),
    (b"RIFF", "RIFF"),
)


def sniff(head: bytes, *, uri: str) -> str:
    """Name FFmpeg's demuxer for a file that starts with `head`.

    An image is taken only under an image's name, so that a thumbnail saved as .mp4 is reported.
    Raises BadInput(UNSUPPORTED_CONTAINER) for known media we do not read, NOT_A_VIDEO for the rest.
    """
    if head[4:8] in _BOXES:
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    for magic, demuxer in _MAGIC:
        if head.startswith(magic):
            return demuxer
    for magic, demuxer, suffixes in _IMAGES:
        if head.startswith(magic):
            if PurePosixPath(uri).suffix.lower() in suffixes:
                return demuxer
            raise BadInput(FailureCode.NOT_A_VIDEO, "this is an image under another name")
    if demuxer := _transport_stream(head) or _elementary_stream(head):
        return demuxer
    for magic, name in _KNOWN_BUT_REFUSED:
        if head.startswith(magic):
            raise BadInput(FailureCode.UNSUPPORTED_CONTAINER, f"{name} files are not read")
    raise BadInput(FailureCode.NOT_A_VIDEO, "the first bytes are of no known video container")


def _transport_stream(head: bytes) -> str:
    """mpegts when sync bytes recur at a packet's size, wherever in one the file begins."""
    for step in TS_PACKETS:
        least = min(_SYNCS, len(head) // step)
        for first in range(min(step, len(head))):
            syncs = head[first::step]
            if len(syncs) >= max(least, 2) and set(syncs) == {0x47}:
                return "mpegts"
    return ""


def _elementary_stream(head: bytes) -> str:
    """h264 or hevc when the first NAL unit is one a raw stream starts with."""
    for start_code in (b"\x00\x00\x00\x01", b"\x00\x00\x01"):
        if not head.startswith(start_code) or len(head) < len(start_code) + 2:
            continue
        first, second = head[len(start_code)], head[len(start_code) + 1]
        if first & 0x80 == 0 and first & 0x1F in (6, 7, 9) and first & 0x60 in (0, 0x20, 0x60):
            return "h264"
        if first >> 1 in (32, 33, 34, 35, 39) and first & 0x81 == 0 and second == 1:
            return "hevc"
    return ""


def ends_early(fd: int, demuxer: str) -> bool:
    """Tell whether the container's own structure reaches beyond the end of the file."""
    size = os.fstat(fd).st_size
    if demuxer == "mov":
        return _boxes_end(fd, size) > size
    if demuxer == "matroska":
        return _segment_end(fd) > size
    if demuxer == "avi":
        return int.from_bytes(os.pread(fd, 4, 4), "little") + 8 > size
    return False


def _boxes_end(fd: int, size: int, max_boxes: int = 10_000) -> int:
    """Offset at which the last top-level ISO box ends, by its own length field.

    Phones and cameras append what is no box: behind the media, whatever is unknown ends the boxes.
    """
    offset = 0
    found: set[bytes] = set()
    for _ in range(max_boxes):
        header = os.pread(fd, 16, offset)
        is_complete = b"moov" in found and bool(found & {b"mdat", b"moof"})
        if is_complete and header[4:8] not in _BOXES:
            return min(offset, size)
        if len(header) < 8:
            return offset + 8 * bool(header)
        found.add(header[4:8])
        length = int.from_bytes(header[:4], "big")
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        if length == 0:  # "to the end of the file"
            return size
        offset += max(length, 8)
        if offset >= size:
            return offset
    return offset


def _segment_end(fd: int) -> int:
    """Offset at which the Matroska segment ends; 0 when it was written without a size."""
    head = os.pread(fd, HEAD_BYTES, 0)
    start = head.find(b"\x18S\x80g")
    if start < 0 or start + 12 > len(head):
        return 0
    first = head[start + 4]
    width = 9 - first.bit_length()  # EBML: leading zeros count the bytes that follow
    if width > 8:
        return 0
    value = int.from_bytes(head[start + 4 : start + 4 + width], "big") - (1 << 7 * width)
    is_unknown = value == (1 << 7 * width) - 1
    return 0 if is_unknown else start + 4 + width + value
