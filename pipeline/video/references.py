"""Whether other pictures refer to one, by the first bits of its packet.

What refers to a picture that did not come out whole is drawn upon something else. Covered: H.264,
HEVC, MPEG-1, MPEG-2 and MPEG-4 visual. Not covered: others; there the decoder has to complain.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.video.picture_heads import HEADS, PictureHeads

Referred = Callable[[memoryview], bool | None]  # None: it cannot be read

_HEAD_BYTES = 4096  # parameter sets and messages before a picture that are looked at
_START = b"\0\0\1"
_SETTINGS = {"h264": (4, 7), "hevc": (21, 23)}  # the byte with the length of lengths; the fewest


def referred_to(codec: str, extradata: bytes) -> Referred | None:
    """The test of one packet of this codec; None for codecs whose headers are not read."""
    if codec in _SETTINGS:
        test = _h264 if codec == "h264" else _hevc
        return _Units(length_bytes_of(codec, extradata), test).is_referred_to
    return _Kinds(HEADS[codec]).is_referred_to if codec in HEADS else None


def length_bytes_of(codec: str, extradata: bytes) -> int:
    """How many bytes give the length of a unit (avcC, hvcC); 0: start codes stand between."""
    at, least = _SETTINGS[codec]
    is_boxed = extradata[:1] == b"\1" and len(extradata) >= least
    return (extradata[at] & 3) + 1 if is_boxed else 0


class _Units:
    """A picture's first NAL unit with pixels in it says so; other units say nothing."""

    def __init__(self, length_bytes: int, test: Callable[[bytes], bool | None]) -> None:
        self._length_bytes = length_bytes
        self._test = test

    def is_referred_to(self, packet: memoryview) -> bool | None:
        head = bytes(packet[:_HEAD_BYTES])
        for unit in self._by_length(head) if self._length_bytes else _by_start(head):
            known = self._test(unit)
            if known is not None:
                return known
        return None

    def _by_length(self, head: bytes) -> Iterator[bytes]:
        at = 0
        while at + self._length_bytes + 2 <= len(head):
            size = int.from_bytes(head[at : at + self._length_bytes], "big")
            at += self._length_bytes
            if size:
                yield head[at : at + 2]
            at += size


def _by_start(head: bytes) -> Iterator[bytes]:
    at = head.find(_START)
    while 0 <= at < len(head) - 4:
        yield head[at + 3 : at + 5]
        at = head.find(_START, at + 3)


def _h264(unit: bytes) -> bool | None:
    """nal_ref_idc of a slice or a partition (H.264, 7.4.1)."""
    return bool(unit[0] & 0x60) if unit[0] & 31 in (1, 2, 5) else None


def _hevc(unit: bytes) -> bool | None:
    """Even kinds below 16 are of pictures to which none of their layer refers (HEVC, table 7-1)."""
    kind = unit[0] >> 1 & 63
    return (kind > 15 or kind % 2 == 1) if kind < 32 else None


@dataclass(frozen=True, slots=True)
class _Kinds:
    """MPEG-1, MPEG-2 and MPEG-4 say it by the kind of picture."""

    heads: PictureHeads

    def is_referred_to(self, packet: memoryview) -> bool | None:
        is_b = self.heads.is_b(bytes(packet[:_HEAD_BYTES]))
        return None if is_b is None else not is_b
