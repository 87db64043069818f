"""Packets that show no picture, by their first bits: not-coded VOPs, hidden VP8 and VP9 frames.

A player goes on showing the picture before. Whatever cannot be read is taken for a picture.
"""

from collections.abc import Callable

from pipeline.video.bits import Bits

Hides = Callable[[memoryview], bool]

_VOP = b"\x00\x00\x01\xb6"
_LAYER = b"\x00\x00\x01"
_SCAN_BYTES = 4096  # headers and user data before a VOP


def hides_picture(codec: str, extradata: bytes) -> Hides | None:
    """The test of one packet of this codec, or None where every packet shows a picture."""
    if codec == "mpeg4":
        return _Mpeg4(extradata).hides
    return {"vp8": _vp8_hides, "vp9": _vp9_hides}.get(codec)


def packs_pictures(codec: str) -> Hides | None:
    """The test of whether a packet of this codec holds two pictures, as DivX packed B-VOPs."""
    return _packs_vops if codec == "mpeg4" else None


def _packs_vops(data: memoryview) -> bool:
    return bytes(data).count(_VOP) > 1


class _Mpeg4:
    """How many bits a VOP's time takes stands in the layer's header (ISO 14496-2, 6.2.3)."""

    def __init__(self, extradata: bytes) -> None:
        self._time_bits: int | None = None
        self._learn(extradata)

    def hides(self, data: memoryview) -> bool:
        head = bytes(data[:_SCAN_BYTES])
        at = head.find(_VOP)
        if at < 0:
            return False
        if at:
            self._learn(head[:at])
        if self._time_bits is None:
            return False
        bits = Bits(head[at + len(_VOP) : at + len(_VOP) + 32])
        bits.take(2)  # coding type
        for _ in range(64):  # whole seconds
            if not bits.take(1):
                break
        marker, _, other = bits.take(1), bits.take(self._time_bits), bits.take(1)
        return bool(marker and other) and not bits.take(1)  # broken ones hide nothing

    def _learn(self, head: bytes) -> None:
        at = head.find(_LAYER)
        while at >= 0:
            if at + 4 < len(head) and 0x20 <= head[at + 3] <= 0x2F:
                self._time_bits = _time_bits(Bits(head[at + 4 : at + 68])) or self._time_bits
            at = head.find(_LAYER, at + 3)


def _time_bits(bits: Bits) -> int:
    bits.take(9)
    version = 1
    if bits.take(1):
        version = bits.take(4)
        bits.take(3)
    if bits.take(4) == 15:  # pixels of their own shape
        bits.take(16)
    if bits.take(1):
        bits.take(3)
        if bits.take(1):
            bits.take(79)
    if bits.take(2) == 3 and version != 1:
        bits.take(4)
    bits.take(1)
    return max(1, (bits.take(16) - 1).bit_length())


def _vp8_hides(data: memoryview) -> bool:
    """By the frame tag (RFC 6386, 9.1), if the rest of it makes sense."""
    tag = int.from_bytes(data[:3], "little")
    is_key, first_part = not tag & 1, tag >> 5
    head = 10 if is_key else 3
    if not 0 < first_part <= len(data) - head or (is_key and bytes(data[3:6]) != b"\x9d\x01\x2a"):
        return False
    return not tag >> 4 & 1


def _vp9_hides(data: memoryview) -> bool:
    frames = _superframe(data) or [data]
    return not any(map(_vp9_shows, frames))


def _vp9_shows(frame: memoryview) -> bool:
    bits = Bits(bytes(frame[:2]))
    if bits.take(2) != 2:
        return True
    if bits.take(1) + 2 * bits.take(1) == 3:
        bits.take(1)
    if bits.take(1):  # shows a frame that was decoded before
        return True
    bits.take(1)
    return bool(bits.take(1))


def _superframe(data: memoryview) -> list[memoryview]:
    """The frames of a VP9 superframe, by the index at its end; none if it has no index."""
    marker = data[-1] if len(data) else 0
    width, count = (marker >> 3 & 3) + 1, (marker & 7) + 1
    size = 2 + width * count
    if marker >> 5 != 6 or len(data) < size or data[-size] != marker:
        return []
    frames, at = [], 0
    for number in range(count):
        start = len(data) - size + 1 + number * width
        length = int.from_bytes(data[start : start + width], "little")
        frames.append(data[at : at + length])
        at += length
    return [frame for frame in frames if len(frame)]
