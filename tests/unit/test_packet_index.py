"""Promises of the packet index: which frames are there, and whether their stamps are times."""

import pytest

from pipeline.video.packet_index import PacketIndex

Packet = tuple[int | None, str]  # stamp; k keyframe, p other, d cut away, c cut-away key, b broken


def index_of(packets: list[Packet]) -> PacketIndex:
    index = PacketIndex(is_counted=False)
    for stamp, kind in packets:
        index.add(
            stamp, duration=1, is_key=kind in "kc", is_shown=kind not in "dc", is_whole=kind != "b"
        )
    index.close()
    return index


@pytest.mark.parametrize(
    ("packets", "stamps", "is_counted"),
    [
        ([(0, "k"), (3, "p"), (1, "p")], [0, 3, 1], False),
        ([(0, "c"), (1, "d"), (2, "p"), (3, "k")], [2, 3], False),
        ([(5, "p"), (6, "p"), (9, "k"), (8, "p"), (10, "p")], [9, 10], False),
        ([(0, "k"), (1, "p"), (2, "b"), (3, "b")], [0, 1], False),
        ([(0, "k"), (1, "b"), (2, "p")], [0, 1, 2], False),
        ([(5, "k"), (6, "p"), (0, "k"), (1, "p")], [0, 1, 2, 3], True),
        ([(5, "k"), (6, "k"), (7, "p"), (1, "p")], [5, 6, 7, 1], False),
        ([(None, "k"), (None, "p")], [0, 1], True),
        ([(0, "p"), (1, "p")], [0, 1], False),
        ([], [], False),
    ],
)
def test_the_frames_that_can_be_shown_are_listed(
    packets: list[Packet], stamps: list[int], is_counted: bool
) -> None:
    index = index_of(packets)
    assert list(index.stamps) == stamps
    assert len(index.is_key) == len(stamps)
    assert index.is_counted is is_counted


def test_what_is_dropped_before_the_first_keyframe_is_counted() -> None:
    assert index_of([(5, "p"), (9, "k"), (8, "p")]).num_leading == 2
