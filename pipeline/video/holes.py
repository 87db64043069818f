"""Holes in the coded pictures of H.264 and HEVC: zeros where no encoder puts any.

What keeps start codes out of a unit keeps three zeros in a row out as well (H.264, 7.4.1; HEVC,
7.4.2). Bytes that were never written, or never fetched, are zeros; decoders take them for pixels
and complain of nothing. Not covered: other wrong bytes, other codecs.
"""

import re
from collections.abc import Callable

from pipeline.video.nal_units import lengthy_units, units
from pipeline.video.references import length_bytes_of

Holds = Callable[[memoryview], bool]

_ZEROS = b"\0\0\0"
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


_IS_SLICE: dict[str, Callable[[int], bool]] = {  # by the first byte of a unit
    "h264": lambda head: head & 31 in range(1, 6),
    "hevc": lambda head: head >> 1 & 63 < 32,
}
