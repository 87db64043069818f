"""Zeros in a coded picture, where no encoder writes them."""

from collections.abc import Callable

import pytest

from pipeline.video.holes import holds_hole, is_seldom, lacks_end

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


def test_what_ends_in_more_zeros_than_an_encoder_leaves_lacks_its_end() -> None:
    lacks = lacks_end("vp9")
    assert lacks is not None
    assert lacks(memoryview(BODY + bytes(16)))
    for sound in (BODY, BODY + bytes(15), HOLE, b"", BODY + bytes(16) + b"\1"):
        assert not lacks(memoryview(sound))
    assert not lacks(memoryview(bytes(99)))  # it has no beginning either: it is not decoded
    assert lacks_end("prores") is None  # filled up to a size


def test_what_many_packets_have_is_no_damage() -> None:
    assert is_seldom(1, 1)
    assert is_seldom(2, 10)
    assert not is_seldom(3, 10)
    assert is_seldom(50, 1000)
    assert not is_seldom(51, 1000)
