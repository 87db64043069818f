"""Coded headers tell the order of pictures, or that they do not: never another order."""

import random
from dataclasses import replace
from pathlib import Path

import av
import pytest

from pipeline.video.coded_order import Told, coded_order
from pipeline.video.losses import misses_reference
from tests.broken_media import Coded, packed, packets_of
from tests.media_factory import Clip, make

PYRAMID = (("x264-params", "bframes=5:b-pyramid=normal:b-adapt=0:keyint=30:scenecut=0"),)
OPEN_GOP = (("x264-params", "open-gop=1:bframes=3:keyint=12:scenecut=0"),)
INTERLACED = (("x264-params", "tff=1:interlaced=1"),)
BASELINE = (("profile", "baseline"),)
HIGH_444 = (("profile", "high444"),)
LONG = Clip(num_frames=90, b_frames=3, gop=40)  # counts wrap within a group of pictures
CLIPS = {
    **{suffix: replace(LONG, suffix=suffix) for suffix in (".mp4", ".mkv", ".ts", ".h264", ".avi")},
    "pyramid": replace(LONG, options=PYRAMID),
    "open groups": replace(LONG, options=OPEN_GOP),
    "fields": replace(LONG, suffix=".ts", options=INTERLACED),
    "in order": replace(LONG, b_frames=0, options=BASELINE),
    "4:4:4": replace(LONG, options=HIGH_444, pixel_format="yuv444p"),
    "mpeg2": replace(LONG, codec="mpeg2video", b_frames=2, suffix=".ts"),
    "mpeg2 in order": replace(LONG, codec="mpeg2video", suffix=".ts", b_frames=0),
    "mpeg4": replace(LONG, codec="mpeg4", b_frames=2),
    "mpeg4 avi": replace(LONG, codec="mpeg4", b_frames=2, suffix=".avi"),
}


def order_in(path: Path, packets: list[Coded]) -> Told | None:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        order = coded_order(context.codec.canonical_name, bytes(context.extradata or b""))
    assert order is not None
    return order((memoryview(packet.data), packet.is_key) for packet in packets)


@pytest.mark.parametrize("name", CLIPS)
def test_the_order_is_that_of_the_decoder(name: str, tmp_path: Path) -> None:
    path = make(tmp_path, CLIPS[name])
    packets = packets_of(path)
    with av.open(str(path)) as container:
        outputs: list[int] = []
        context = container.streams.video[0].codec_context
        for number, packet in enumerate(container.demux(video=0)):
            packet.pts = number if packet.size else None
            outputs += [frame.pts for frame in context.decode(packet) if frame.pts is not None]
    assert len(outputs) == 90
    assert order_in(path, packets) == Told(outputs, [])


def behind_gaps(path: Path, packets: list[Coded]) -> list[int]:
    """Packets before which a picture is missing that others refer to."""
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        misses = misses_reference(context.codec.canonical_name, bytes(context.extradata or b""))
    assert misses is not None
    return [n for n, packet in enumerate(packets) if misses(memoryview(packet.data), packet.is_key)]


@pytest.mark.parametrize("name", [name for name in CLIPS if not name.startswith("mpeg")])
def test_a_picture_that_others_refer_to_is_missed_and_no_other(name: str, tmp_path: Path) -> None:
    path = make(tmp_path, CLIPS[name])
    packets = packets_of(path)
    assert behind_gaps(path, packets) == []
    key = next(n for n in range(1, 90) if packets[n].is_key)
    for lost in (4, key):
        assert behind_gaps(path, packets[:lost] + packets[lost + 1 :]) in ([lost], [])
    assert behind_gaps(path, packets[:key] + packets[key + 1 :])
    assert misses_reference("hevc", b"") is None


@pytest.mark.parametrize("name", ["mpeg2", "mpeg2 in order"])
def test_a_picture_of_mpeg2_is_missed_one_later_at_most(name: str, tmp_path: Path) -> None:
    path = make(tmp_path, CLIPS[name])
    packets = packets_of(path)
    assert behind_gaps(path, packets) == []
    for lost in (4, 13):  # of both clips one that others refer to
        [first, *_] = behind_gaps(path, packets[:lost] + packets[lost + 1 :])
        assert first in (lost, lost + 1)
    if name == "mpeg2":
        assert behind_gaps(path, packets[:5] + packets[6:]) == []


def test_packets_that_hold_two_pictures_or_none_are_not_told(tmp_path: Path) -> None:
    path = packed(tmp_path, Clip(codec="mpeg4", b_frames=1, fps=25))
    packets = packets_of(path)
    assert order_in(path, packets) is None
    whole = make(tmp_path, LONG)
    packets = packets_of(whole)
    empty = replace(packets[5], data=b"")
    assert order_in(whole, [*packets[:5], *[empty] * 9, *packets[5:]]) is None
    assert order_in(whole, [*packets[:5], packets[5], *packets[5:]]) is None


@pytest.mark.parametrize("name", [".mp4", ".h264", "mpeg4"])
def test_a_broken_header_moves_no_other_picture(name: str, tmp_path: Path) -> None:
    path = make(tmp_path, CLIPS[name])
    packets = packets_of(path)
    whole = order_in(path, packets)
    assert whole is not None
    for broken in (40, 41, 42, 43):
        zeroed = replace(packets[broken], data=bytes(len(packets[broken].data)))
        told = order_in(path, [*packets[:broken], zeroed, *packets[broken + 1 :]])
        assert told is not None
        if name != "mpeg4":
            assert told.unread == ([] if packets[broken].is_key else [broken])
        left = [n for n in whole.shown if n not in told.unread]
        assert [n for n in told.shown if n != broken] == [n for n in left if n != broken]


@pytest.mark.parametrize("name", ["pyramid", ".h264", "mpeg4"])
def test_garbage_is_not_told_and_harms_nobody(name: str, tmp_path: Path) -> None:
    path, chance = make(tmp_path, CLIPS[name]), random.Random(name)
    packets = packets_of(path)
    for _ in range(50):
        one = chance.choice(packets)
        broken = bytearray(one.data)
        for _ in range(20):
            broken[chance.randrange(min(len(broken), 40))] = chance.randrange(256)
        told = order_in(path, [*packets[:9], replace(one, data=bytes(broken)), *packets[9:]])
        assert told is None or len(told.shown) + len(told.unread) <= len(packets) + 1
    codec = "mpeg4" if name == "mpeg4" else "h264"
    for _ in range(50):
        order_of = coded_order(codec, chance.choice((b"", b"\1")) + chance.randbytes(60))
        assert order_of is not None
        order_of([(memoryview(chance.randbytes(200)), True)])


def test_other_codecs_are_not_read() -> None:
    assert coded_order("hevc", b"") is None
