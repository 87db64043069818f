"""Where the units of a packet of H.264 or HEVC lie: between start codes or behind lengths."""

from collections.abc import Iterator


def unescaped(unit: bytes) -> bytes:
    """Without the bytes that keep start codes out of a unit (H.264, 7.4.1.1)."""
    return unit.replace(b"\0\0\3", b"\0\0")


def units(data: bytes) -> Iterator[bytes]:
    """NAL units between start codes."""
    at = data.find(b"\0\0\1")
    while at >= 0:
        following = data.find(b"\0\0\1", at + 3)
        unit = data[at + 3 : following if following >= 0 else len(data)]
        if unit:
            yield unit
        at = following


def lengthy_units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """NAL units each behind its length; the last one may be cut."""
    at = 0
    while at + length_bytes < len(data):
        size = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        if size:
            yield data[at : at + size]
        at += size


def avcc_units(extradata: bytes) -> Iterator[bytes]:
    """The sequence parameter sets of an avcC box (ISO 14496-15, 5.3.3.1)."""
    at = 6
    for _ in range(extradata[5] & 31):
        size = int.from_bytes(extradata[at : at + 2], "big")
        yield extradata[at + 2 : at + 2 + size]
        at += 2 + size
