"""Zeros in a coded picture, where no encoder writes them."""

from collections.abc import Callable

import pytest

from pipeline.video.holes import holds_hole

AVCC = b"\1\x64\0\x0a\xff\xe1\0\0\1\0"  # units behind lengths of four bytes
HVCC = b"\1" + bytes(20) + b"\3" + bytes(2)
SLICE = {"h264": b"\x41", "hevc": b"\x02\x01"}
MESSAGE = {"h264": b"\x06", "hevc": b"\x4e\x01"}  # SEI
BOXED = {"h264": AVCC, "hevc": HVCC}
BODY, HOLE = b"\x9a\0\0\3\1\x80" * 3, b"\x9a\0\0\0\0\x80\x21"


def boxed(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def started(*units: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in units)


@pytest.mark.parametrize("join", [boxed, started])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_zeros_are_a_hole_in_a_picture_and_nowhere_else(
    codec: str, join: Callable[..., bytes]
) -> None:
    holds = holds_hole(codec, BOXED[codec] if join is boxed else b"")
    assert holds is not None
    picture, message = SLICE[codec], MESSAGE[codec]
    for sound in (
        [picture + BODY],
        [message + BODY, picture + BODY, picture + BODY],
        [message + HOLE, picture + BODY],  # careless, and of no picture
        [picture + BODY + bytes(9)],  # left behind its last bit
        [picture + BODY + bytes(9), picture + BODY],
        [],
    ):
        assert not holds(memoryview(join(*sound)))
    for holed in (
        [picture + HOLE],
        [message + BODY, picture + BODY, picture + BODY + HOLE],
        [picture + HOLE, message + BODY],
    ):
        assert holds(memoryview(join(*holed)))


def test_what_is_cut_or_of_another_codec_tells_nothing() -> None:
    holds = holds_hole("h264", AVCC)
    assert holds is not None
    assert not any(holds(memoryview(bytes(count))) for count in range(12))
    assert holds_hole("vp9", b"") is None


@pytest.mark.parametrize("extradata", [b"", AVCC])
@pytest.mark.parametrize("pattern", [b"\0\0\0\2", b"\0\0\1\x06", bytes(4), b"\0\0\1"])
def test_a_packet_of_nothing_but_holes_takes_no_longer(extradata: bytes, pattern: bytes) -> None:
    """Looked at once from its beginning to its end: by its square it would take hours."""
    holds = holds_hole("h264", extradata)
    assert holds is not None
    holds(memoryview(b"\0\0\1\x06" + pattern * (1 << 20)))
