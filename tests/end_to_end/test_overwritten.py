"""Pictures whose bytes were written over, or whose last ones never were.

Other bytes are codes as well: most decoders draw what they mean and say nothing. Those of H.264
without arithmetic coding rarely end where the picture does, and no encoder ends with many zeros.
"""

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.broken_media import mux, overwrite, packets_of, with_hidden
from tests.looks import WAYS, look_or_refusal
from tests.media_factory import Clip, barcode, write

GROUP = 12
CLIP = Clip(num_frames=36, gop=GROUP)  # of x264's ultrafast, which has no arithmetic coding
JUNK = b"\x80\x12\x34\x56"
# A decoder of several threads may give a picture before it knows that this one is broken.
ON_ONE_THREAD = [way for way in WAYS if way[3] == 1]


def grainy(folder: Path, clip: Clip) -> Path:
    """The clip with grain in its pictures, which takes far more codes."""
    chance, shape = np.random.default_rng(0), (clip.height, clip.width, 1)
    pictures = [
        barcode(number, width=clip.width, height=clip.height) + chance.integers(-30, 30, shape)
        for number in range(clip.num_frames)
    ]
    path = folder / f"grainy{clip.suffix}"
    write(path, [picture.astype(np.uint8) for picture in pictures], clip)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_picture_written_over_is_marked_with_all_that_is_drawn_upon_it(
    b_frames: int, suffix: str, tmp_path: Path
) -> None:
    clip = replace(CLIP, b_frames=b_frames, suffix=suffix)
    path = grainy(tmp_path, clip)
    for broken in (15, 17):
        damaged = tmp_path / f"{broken}{suffix}"
        shutil.copy(path, damaged)
        overwrite(damaged, [packets_of(path)[broken]], keep=100, value=0x55)
        ways = [look_or_refusal(damaged, way, fps=100) for way in ON_ONE_THREAD]
        for seen in filter(None, ways):
            assert seen == ways[0]
            assert any(is_damaged for *_, is_damaged in seen)
            assert all(number == place for _, place, number, damage in seen if not damage)


def test_what_an_encoder_leaves_behind_every_picture_is_no_damage(tmp_path: Path) -> None:
    path = grainy(tmp_path, CLIP)
    packets = [
        replace(coded, data=with_junk(coded.data), pts=place, dts=place)
        for place, coded in enumerate(packets_of(path))
    ]
    left = mux(path, packets, tmp_path / "left.mp4", time_base=Fraction(1, CLIP.fps))
    for way in WAYS:
        seen = look_or_refusal(left, way, fps=100)
        assert all(number == place and not is_damaged for _, place, number, is_damaged in seen)


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("hevc", ".mp4"), ("hevc", ".mkv"), ("vp8", ".webm"), ("vp9", ".webm"), ("av1", ".mp4")],
)
def test_behind_a_picture_whose_end_is_zeros_all_is_marked_up_to_the_next_keyframe(
    codec: str, suffix: str, tmp_path: Path
) -> None:
    clip = replace(CLIP, codec=codec, suffix=suffix)
    path = grainy(tmp_path, clip)
    for broken in (12, 17):
        damaged = unended(path, broken)
        ways = [look_or_refusal(damaged, way, fps=100) for way in WAYS]
        for seen in filter(None, ways):
            assert seen == ways[0]
            marked = {place for _, place, _, is_damaged in seen if is_damaged}
            assert marked >= {broken}
            assert marked <= {*range(GROUP, 2 * GROUP)}
            assert all(number == place for _, place, number, damage in seen if not damage)


def test_a_hidden_picture_whose_end_is_zeros_costs_what_is_drawn_upon_it(tmp_path: Path) -> None:
    path = with_hidden(tmp_path, replace(CLIP, codec="vp8", suffix=".webm"), [17])
    for way in ON_ONE_THREAD:
        if seen := look_or_refusal(unended(path, 17), way, fps=100):
            assert {place for _, place, _, damaged in seen if damaged} == {
                *range(17, 2 * GROUP - 1)
            }


def test_zeros_that_an_encoder_puts_behind_every_picture_are_no_damage(tmp_path: Path) -> None:
    clip = replace(CLIP, codec="vp8", suffix=".webm")
    path = grainy(tmp_path, clip)
    packets = [
        replace(coded, data=coded.data + bytes(64), pts=place, dts=place)
        for place, coded in enumerate(packets_of(path))
    ]
    filled = mux(path, packets, tmp_path / "filled.webm", time_base=Fraction(1, CLIP.fps))
    for way in WAYS:
        seen = look_or_refusal(filled, way, fps=100)
        assert all(number == place and not is_damaged for _, place, number, is_damaged in seen)


def unended(path: Path, broken: int) -> Path:
    """The clip with zeros in the place of the second half of a packet."""
    packet = packets_of(path)[broken].data
    kept = len(packet) // 2
    damaged = path.with_stem(f"unended{broken}")
    damaged.write_bytes(path.read_bytes().replace(packet, packet[:kept].ljust(len(packet), b"\0")))
    assert damaged.read_bytes() != path.read_bytes()
    return damaged


def with_junk(packet: bytes) -> bytes:
    """A picture's packet with bytes behind its only unit, or the last of them."""
    at = 0
    while (end := at + 4 + int.from_bytes(packet[at : at + 4], "big")) < len(packet):
        at = end
    size = end - at - 4 + len(JUNK)
    return packet[:at] + size.to_bytes(4, "big") + packet[at + 4 :] + JUNK
