"""Fields of H.264 in packets of their own, as broadcasts and camcorders have them.

A decoder gives one picture for two of them, under the first one's packet.
"""

from collections.abc import Callable

from pipeline.video.h264_headers import CodedPicture, H264Headers

IsSecond = Callable[[memoryview], bool]


def second_field(codec: str, extradata: bytes) -> IsSecond | None:
    """The test, packet by packet in decoding order, of whether one goes on with the picture of the
    packet before; None where there are no fields.
    """
    if codec != "h264":
        return None
    headers = H264Headers(extradata)
    return _Pairs(headers).is_second if headers.has_fields else None


class _Pairs:
    """Of two fields that are one picture each is of another parity, under one number (7.4.3)."""

    def __init__(self, headers: H264Headers) -> None:
        self._headers = headers
        self._first: CodedPicture | None = None

    def is_second(self, packet: memoryview) -> bool:
        first, field = self._first, self._headers.picture(packet)
        self._first = None
        if field is None or field.is_bottom is None:
            return False
        if (
            first is not None
            and first.is_bottom != field.is_bottom
            and first.number == field.number
        ):
            return True
        self._first = field
        return False
