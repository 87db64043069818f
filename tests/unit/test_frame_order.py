"""Promises of the order of frames: which packets show one, where, and when an order is proven."""

import numpy as np
import pytest

from pipeline.video.hidden import hides_picture
from pipeline.video.presentation import Measured, Order, Packets, order_of
from pipeline.video.wire import NO_STAMP, Header, Mark

Packet = tuple[
    int | None, str
]  # stamp; k key, p other, d cut away, c cut-away key, h hidden, b half, 2 packed
MARKS = {
    "k": Mark.KEY,
    "p": 0,
    "d": Mark.DISCARD,
    "c": Mark.KEY | Mark.DISCARD,
    "h": Mark.HIDDEN,
    "b": Mark.CORRUPT,
    "2": Mark.PACKED,
}


# MPEG-4 visual: the head of a layer, whose VOPs have four bits of time (12 steps a second).
LAYER = b"\0\0\1\x20\x00\x84\x40\x03\x20"


def header(depth: int) -> Header:
    return Header(
        codec="h264",
        pixel_format="yuv420p",
        coded_width=64,
        coded_height=64,
        row_width=64,
        matrix=(),
        sar_num=1,
        sar_den=1,
        time_base_num=1,
        time_base_den=10,
        rate_num=10,
        rate_den=1,
        num_packets=1,
        reorder_depth=depth,
        offset=0,
        last_duration=1,
        file_end_s=0.0,
        declared_frames=0,
        declared_duration_s=0.0,
        is_cut=False,
        is_still=False,
        leaves_bits=False,
        flags=(),
    )


def order(
    packets: list[Packet],
    *,
    depth: int = 1,
    demuxer: str = "mov",
    outputs: list[int] | None = None,
    refused: tuple[int, ...] = (),
) -> Order | None:
    given = Packets(
        stamps=np.array([NO_STAMP if stamp is None else stamp for stamp, _ in packets], np.int64),
        marks=np.array([MARKS[kind] for _, kind in packets], np.uint8),
    )
    measured = None
    if outputs is not None:
        is_refused = np.isin(np.arange(len(packets)), refused)
        measured = Measured(outputs=np.array(outputs, np.int64), is_refused=is_refused)
    return order_of(given, header(depth), demuxer=demuxer, measured=measured)


@pytest.mark.parametrize(
    ("packets", "shown", "pts"),
    [
        ([(0, "k"), (3, "p"), (1, "p"), (4, "p")], [0, 2, 1, 3], [0, 1, 3, 4]),
        ([(0, "c"), (1, "d"), (2, "p"), (1, "p")], [3, 2], [1, 2]),
        ([(0, "k"), (2, "c"), (4, "d"), (2, "p"), (1, "p")], [0, 4, 3], [0, 1, 2]),
        ([(5, "p"), (6, "p"), (9, "k"), (8, "p"), (11, "p"), (10, "p")], [2, 5, 4], [9, 10, 11]),
        ([(0, "k"), (2, "p"), (1, "p"), (3, "b"), (4, "b")], [0, 2, 1], [0, 1, 2]),
        ([(0, "k"), (2, "p"), (1, "b"), (3, "p")], [0, 2, 1, 3], [0, 1, 2, 3]),
        ([(0, "k"), (2, "p"), (1, "h"), (1, "p")], [0, 3, 1], [0, 1, 2]),
        ([(0, "k"), (3, "p"), (1, "p"), (1, "p")], [0, 3, 1], [0, 1, 3]),
        ([(0, "p"), (2, "p"), (1, "p")], [0, 2, 1], [0, 1, 2]),
        # joined: the second part is twice as slow, and begins where the first ends
        (
            [(5, "k"), (7, "p"), (6, "p"), (0, "k"), (4, "p"), (2, "p")],
            [0, 2, 1, 3, 5, 4],
            [5, 6, 7, 8, 10, 12],
        ),
    ],
)
def test_frames_are_listed_as_a_player_shows_them(
    packets: list[Packet], shown: list[int], pts: list[int]
) -> None:
    found = order(packets)
    assert found is not None
    assert found.packets.tolist() == shown
    assert found.pts.tolist() == pts
    assert not found.is_measured


def test_without_reordering_the_order_of_decoding_is_proven() -> None:
    found = order([(0, "k"), (2, "p"), (5, "p")], depth=0)
    assert found is not None
    assert found.pts.tolist() == [0, 2, 5]
    numbered = order([(None, "k"), (None, "p")], depth=0)
    assert numbered is not None
    assert numbered.is_numbered
    assert numbered.pts.tolist() == [0, 1]


@pytest.mark.parametrize(
    "packets",
    [
        [(0, "k"), (1, "p"), (2, "p")],  # in decoding order although the decoder reorders
        [(0, "k"), (3, "p"), (2, "p"), (1, "p")],  # further back than the decoder can
        [(None, "k"), (None, "p")],
    ],
)
def test_an_order_that_stamps_cannot_prove_is_measured(packets: list[Packet]) -> None:
    assert order(packets) is None


def test_a_measured_order_hands_the_stamps_out_anew() -> None:
    found = order([(0, "k"), (1, "p"), (2, "p"), (3, "p")], outputs=[0, 2, 1, 3])
    assert found is not None
    assert found.packets.tolist() == [0, 2, 1, 3]
    assert found.pts.tolist() == [0, 1, 2, 3]
    assert found.is_permuted


@pytest.mark.parametrize(
    ("outputs", "lost", "expected"),
    [
        ([0, 2, 4, 3, 6, 5], 1, [0, 2, 1, 4, 3, 6, 5]),
        ([0, 2, 1, 3, 6, 5], 4, [0, 2, 1, 3, 4, 6, 5]),  # which of two neighbours: nobody knows
    ],
)
def test_a_picture_that_does_not_come_out_moves_nothing_after_it(
    outputs: list[int], lost: int, expected: list[int]
) -> None:
    found = order([(None, "kpppppp"[n]) for n in range(7)], outputs=outputs, refused=(lost,))
    assert found is not None
    assert found.packets.tolist() == expected


@pytest.mark.parametrize(
    ("pattern", "depth"),
    [
        ((2, 3, 1), 1),  # IBBP: places of presentation as packets, group by group
        ((3, 2, 4, 1), 2),  # a B-picture that others refer to
        ((4, 3, 5, 2, 7, 6, 8, 1), 3),
    ],
)
def test_a_lost_picture_stands_where_its_like_stand_in_other_groups(
    pattern: tuple[int, ...], depth: int
) -> None:
    size, num_groups = len(pattern), 12
    shown = [0, *(group * size + n for group in range(num_groups) for n in pattern)]
    for lost in range(6 * size + 1, 7 * size + 1):
        outputs = [packet for packet in shown if packet != lost]
        found = order(
            [(None, "kp"[n > 0]) for n in range(len(shown))],
            depth=depth,
            outputs=outputs,
            refused=(lost,),
        )
        assert found is not None
        assert found.packets.tolist() == shown


def test_a_packet_that_is_decoded_and_gives_nothing_is_no_frame() -> None:
    found = order([(None, "k"), (None, "p"), (None, "p")], outputs=[0, 2])
    assert found is not None
    assert found.packets.tolist() == [0, 2]


def test_a_long_pause_is_a_join_in_transport_streams_only() -> None:
    packets: list[Packet] = [(0, "k"), (2, "p"), (1, "p"), (500, "k"), (502, "p"), (501, "p")]
    joined, kept = order(packets, demuxer="mpegts"), order(packets)
    assert joined is not None
    assert kept is not None
    assert joined.pts.tolist() == [0, 1, 2, 3, 4, 5]
    assert kept.pts.tolist() == [0, 1, 2, 500, 501, 502]


@pytest.mark.parametrize(
    ("codec", "data", "is_hidden"),
    [
        ("vp8", b"\x31\0\0\0", False),
        ("vp8", b"\x21\0\0\0", True),
        ("vp8", b"\x20\0\0\x9d\x01\x2a\0\0\0\0\0", True),
        ("vp8", b"\x20\0\0\0\0\0\0\0\0\0\0", False),  # no keyframe begins so: it is broken
        ("vp8", b"\x21\0\0", False),  # its first part is not there
        ("vp8", bytes(20), False),
        ("vp9", b"\x82\0", False),  # marker, profile 0, a shown keyframe
        ("vp9", b"\x84\0", True),
        ("vp9", b"\x88", False),  # shows one decoded before
        ("vp9", b"\x84\0\x82\0\xc1\x02\x02\xc1", False),  # a superframe: hidden, shown
        ("mpeg4", b"\0\0\1\xb6", False),  # no layer: its time cannot be skipped
        ("mpeg4", LAYER + b"\0\0\1\xb6\x51\x80", True),
        ("mpeg4", LAYER + b"\0\0\1\xb6\x51\xc0", False),
        ("mpeg4", LAYER + b"\0\0\1\xb6\0\0", False),  # without its marker bits
    ],
)
def test_what_a_packet_shows_is_read_off_its_first_bits(
    codec: str, data: bytes, is_hidden: bool
) -> None:
    hides = hides_picture(codec, b"")
    assert hides is not None
    assert hides(memoryview(data)) is is_hidden


def test_other_codecs_show_a_picture_with_every_packet() -> None:
    assert hides_picture("h264", b"") is None


def test_what_stands_for_a_packed_picture_is_one_however_well_stamps_look() -> None:
    packets: list[Packet] = [(1, "k"), (2, "p"), (4, "2"), (3, "h"), (5, "p"), (7, "2"), (6, "h")]
    assert order(packets) is None
    found = order(packets, outputs=[0, 1, 3, 2, 4, 6, 5])
    assert found is not None
    assert found.packets.tolist() == [0, 1, 3, 2, 4, 6, 5]
    assert found.pts.tolist() == [1, 2, 3, 4, 5, 6, 7]
