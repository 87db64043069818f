"""Zeros in a picture, where no encoder writes them.

Bytes that were never written, or never fetched, are zeros; decoders take them for pixels and
complain of nothing. Covered: H.264 and HEVC, whose writers keep three zeros in a row out (H.264,
7.4.1; HEVC, 7.4.2), and zeros up to the end of a packet of HEVC, VP8, VP9 and AV1.
Not covered: other wrong bytes, other codecs.
"""

import re
from collections.abc import Callable

from pipeline.video.nal_units import lengthy_units, units
from pipeline.video.references import length_bytes_of

Holds = Callable[[memoryview], bool]

_ZEROS = b"\0\0\0"
_TAIL = bytes(16)  # encoders end their packets with up to three
_MAX_HOLES, _HOLES_PER_PACKETS = 2, 20
_HOLE = re.compile(rb"\0\0\0[^\0\1]")  # zeros between units lead to a start code


def holds_hole(codec: str, extradata: bytes) -> Holds | None:
    """The test of one packet of this codec; None for codecs where zeros show nothing."""
    if codec not in _IS_SLICE:
        return None
    is_slice, length_bytes = _IS_SLICE[codec], length_bytes_of(codec, extradata)

    def holds(packet: memoryview) -> bool:
        data = bytes(packet)
        if _ZEROS not in data:
            return False
        if not length_bytes:
            return any(is_slice(unit[0]) and _HOLE.search(unit) for unit in units(data))
        # Behind the last bit of a unit some muxers leave zeros, which do no harm.
        lengthy = lengthy_units(data, length_bytes)
        return any(is_slice(unit[0]) and _ZEROS in unit.rstrip(b"\0") for unit in lengthy)

    return holds


def lacks_end(codec: str) -> Holds | None:
    """The test of whether one packet of this codec ends in zeros, behind something else; None for
    codecs where that shows nothing.
    """
    if codec not in _READ_ON:
        return None
    return lambda packet: packet[-len(_TAIL) :] == _TAIL and bytes(packet).strip(b"\0") != b""


def is_seldom(num_holes: int, num_packets: int) -> bool:
    """Whether so many holes are damage, and not how some encoder fills its packets."""
    return num_holes <= max(_MAX_HOLES, num_packets // _HOLES_PER_PACKETS)


_READ_ON = frozenset({"hevc", "vp8", "vp9", "av1"})
_IS_SLICE: dict[str, Callable[[int], bool]] = {  # by the first byte of a unit
    "h264": lambda head: head & 31 in range(1, 6),
    "hevc": lambda head: head >> 1 & 63 < 32,
}
