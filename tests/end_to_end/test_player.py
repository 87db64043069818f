"""The picture at every planned time is the one FFmpeg shows, or it is marked: whatever the packets.

Packets may be hidden, cut away, joined, stamped in any order, damaged or without a picture; reader,
seeking, rate and number of children change nothing.

A reader that knows frames by the stamps of their packets (as vidray did at ebbfae6) fails with
stamps in decoding order, stamps in disorder, overlapping, not coded, packed, hidden, late, joined
and mixed. It passes b-frames, trimmed and edited, which are here as guards.
"""

import math
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from tests.broken_media import (
    cut_at_keyframe,
    empty_pieces,
    in_decoding_order,
    joined,
    lose_pieces,
    overwrite,
    packed,
    packets_of,
    punch,
    shuffled,
    with_edits,
    with_hidden,
    with_repeats,
    with_sound,
)
from tests.looks import WAYS, Seen, Way, look, look_or_refusal
from tests.media_factory import Clip, ffmpeg, make
from tests.player import numbers, shown

B_FRAMES = {"b_frames": 2, "gop": 12, "num_frames": 48}
MPEG4 = {"codec": "mpeg4", "fps": 25, "num_frames": 24, "gop": 12}


def random_edits(folder: Path, chance: random.Random) -> Path:
    """One to three spans of the clip in any order, repeated perhaps, with a pause perhaps."""
    clip = Clip(**{**B_FRAMES, "b_frames": chance.choice((0, 2))})
    edits = []
    for _ in range(chance.randint(1, 3)):
        edits.append((1000 * chance.randint(1, 2), 1024 * 12 * chance.randint(0, 1)))
        if chance.random() < 0.3:
            edits.append((500, -1))
    return with_edits(make(folder, clip), edits, folder / "edited.mp4")


def overlapping(folder: Path, chance: random.Random) -> Path:
    """One to four spans of any pictures in any order, which may share some."""
    clip = Clip(**{**B_FRAMES, "b_frames": chance.choice((0, 2))})
    edits = []
    for _ in range(chance.randint(1, 4)):
        edits += [(500, -1)] * chance.randint(0, 1)
        edits.append((100 * chance.randint(3, 25), 1024 * chance.randint(0, 36)))
    return with_edits(make(folder, clip), edits, folder / "overlapping.mp4")


def trimmed(folder: Path, chance: random.Random) -> Path:
    """What lies before an uneven start is decoded and dropped."""
    clip = Clip(**{**B_FRAMES, "b_frames": chance.choice((0, 2))})
    start = chance.randint(1, 30)
    return with_edits(make(folder, clip), [(1500, 1024 * start)], folder / "trimmed.mp4")


def shuffled_clip(folder: Path, chance: random.Random) -> Path:
    return shuffled(folder, Clip(**B_FRAMES), chance.shuffle)


def random_join(folder: Path, chance: random.Random) -> Path:
    parts = [
        Clip(suffix=".ts", fps=fps, num_frames=fps * 2, b_frames=chance.choice((0, 2)))
        for fps in chance.sample((10, 12, 25, 30), chance.randint(2, 3))
    ]
    return joined(folder, parts)


def late(folder: Path, chance: random.Random) -> Path:
    return with_sound(
        folder,
        Clip(b_frames=chance.choice((0, 2))),
        suffix=chance.choice((".mp4", ".mkv", ".ts")),
        video_at_s=chance.choice((0.5, 2)),
        sound_s=chance.choice((3, 6)),
    )


def mixed(folder: Path, chance: random.Random) -> Path:
    """Any packets in mp4, under any edit list: late perhaps, cut, repeated."""
    b_frames, repeats = {**B_FRAMES, "b_frames": chance.randint(0, 3)}, chance.randint(2, 4)
    path, fps = chance.choice(
        (
            lambda: (make(folder, Clip(**b_frames)), 12),
            lambda: (in_decoding_order(folder, Clip(**b_frames), ".mp4"), 12),
            lambda: (with_repeats(folder, Clip(**MPEG4, suffix=".avi"), ".mp4", repeats), 25),
        )
    )()
    edits = [(500, -1)] * chance.randint(0, 1)
    for _ in range(chance.randint(1, 2)):
        edits.append((100 * chance.randint(5, 15), chance.randint(0, fps) * ticks_per_frame(fps)))
    return with_edits(path, edits, folder / "mixed.mp4")


def ticks_per_frame(fps: int) -> int:
    """The muxer doubles the ticks of a second until there are more than 10,000."""
    ticks = 1
    while ticks * fps <= 10_000:
        ticks *= 2
    return ticks


Build = Callable[[Path, random.Random], Path]
KINDS: dict[str, Build] = {
    "b-frames": lambda folder, chance: make(
        folder, Clip(**B_FRAMES, suffix=chance.choice((".mp4", ".mkv", ".ts", ".avi", ".h264")))
    ),
    "stamps in decoding order": lambda folder, chance: in_decoding_order(
        folder, Clip(**B_FRAMES), chance.choice((".mp4", ".mkv", ".ts"))
    ),
    "stamps in disorder": shuffled_clip,
    "trimmed": trimmed,
    "edited": random_edits,
    "overlapping": overlapping,
    "not coded": lambda folder, chance: with_repeats(
        folder,
        Clip(**MPEG4, suffix=".avi"),
        chance.choice((".avi", ".mp4", ".mkv")),
        chance.randint(2, 4),
    ),
    "packed": lambda folder, _: packed(folder, Clip(**MPEG4, b_frames=1)),
    "hidden": lambda folder, chance: with_hidden(
        folder,
        Clip(codec="vp8", suffix=".webm", num_frames=36, gop=12),
        [place for place in chance.sample(range(36), 5) if place % 12],
    ),
    "late": late,
    "joined": random_join,
    "mixed": mixed,
}
# Where FFmpeg's program and a player agree on times, too: but for a rounding, or its pauses.
LATE_BY_S = {
    **dict.fromkeys(("b-frames", "trimmed", "edited", "late", "hidden"), 0.002),
    "joined": 0.5,
}
COUNTED = (".avi", ".h264")
NUM_SEEDS = 3
SEEDED = [(kind, seed) for kind in KINDS for seed in range(NUM_SEEDS)] + [
    ("mixed", seed) for seed in range(NUM_SEEDS, 4 * NUM_SEEDS)
]


@pytest.mark.parametrize(("kind", "seed"), SEEDED)
def test_every_picture_is_the_one_ffmpeg_shows(kind: str, seed: int, tmp_path: Path) -> None:
    chance = random.Random(f"{kind} {seed}")
    path = KINDS[kind](tmp_path, chance)
    times_s, truth = zip(*shown(path), strict=True)
    for way in WAYS:
        for fps in (chance.choice((1, 2, 5)), 100):
            for time_s, place, number, is_damaged in look_or_refusal(path, way, fps=fps):
                assert not is_damaged
                assert number == truth[place], (way, fps, place)
                if kind in LATE_BY_S and path.suffix not in COUNTED:
                    at, late_by_s = times_s[place], LATE_BY_S[kind]
                    until = times_s[place + 1] if place + 1 < len(times_s) else math.inf
                    assert at - late_by_s <= time_s < until + late_by_s, (way, fps, place)


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
@pytest.mark.parametrize("kind", KINDS)
def test_behind_a_broken_keyframe_no_picture_stands_where_another_is_shown(
    kind: str, seed: int, tmp_path: Path
) -> None:
    chance = random.Random(f"damaged {kind} {seed}")
    path = KINDS[kind](tmp_path, chance)
    truth = numbers(path)
    packets = packets_of(path)
    keys = [place for place, packet in enumerate(packets) if packet.is_key]
    broken = chance.choice(keys[1:] or keys)
    if path.suffix == ".ts":  # where a packet lies in pieces
        chance.choice(
            (
                lambda: lose_pieces(path, broken, slice(None)),
                lambda: empty_pieces(path, broken, keep=0),
            )
        )()
    else:
        keep, value = 4 + chance.choice((0, 5)), chance.choice((0, 0x55))
        overwrite(path, [packets[broken]], keep=keep, value=value)
    fps = chance.choice((2, 5, 100))
    ways = [look_or_nothing(path, way, fps=fps) for way in WAYS]
    for seen in filter(None, ways):
        assert seen == ways[0]
        whole = {place: number for _, place, number, damaged in seen if not damaged}
        if path.suffix == ".ts":  # one picture less is in it
            rest = iter(truth)
            assert all(number in rest for number in whole.values())
        else:
            assert all(number == truth[place] for place, number in whole.items())


STREAMED = [("h264", 0), ("h264", 2), ("hevc", 0), ("mpeg2video", 0), ("mpeg4", 0)]
LOSSES: dict[str, Callable[[Path], Path]] = {
    "all": lambda path: lose_pieces(path, 24, slice(None)),
    "first": lambda path: lose_pieces(path, 24, slice(1)),
    "last": lambda path: lose_pieces(path, 24, slice(-1, None)),
    "emptied": lambda path: empty_pieces(path, 24, keep=0),
    "begun": lambda path: empty_pieces(path, 24, keep=12),
    "torn": lambda path: empty_pieces(path, 24, keep=60),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("codec", "b_frames"), STREAMED)
def test_where_a_transport_stream_lost_a_keyframe_all_is_marked_up_to_the_next(
    codec: str, b_frames: int, loss: str, tmp_path: Path
) -> None:
    clip = Clip(codec=codec, suffix=".ts", num_frames=60, gop=12, b_frames=b_frames)
    path = LOSSES[loss](make(tmp_path, clip))
    ways = [look_or_refusal(path, way, fps=100) for way in WAYS]
    for seen in filter(None, ways):
        assert seen == ways[0]
        whole = {number for _, _, number, is_damaged in seen if not is_damaged}
        assert whole >= {*range(23), *range(36, 60)}
        assert all(
            number == round(time_s * clip.fps)
            for time_s, _, number, is_damaged in seen
            if not is_damaged
        )


def look_or_nothing(path: Path, way: Way, *, fps: float) -> Seen:
    """As look; nothing of a video of which nothing is whole."""
    try:
        return look_or_refusal(path, way, fps=fps)
    except BadInput as error:
        if not re.match(r"no(ne)? (frame )?of .* can be decoded", error.detail):
            raise
        return []


DAMAGE = [
    *(("h264", suffix, b_frames) for suffix in (".mp4", ".mkv") for b_frames in (0, 2)),
    ("hevc", ".mp4", 0),
    ("mpeg4", ".avi", 0),
]


@pytest.mark.parametrize("keep", [0, 5])
@pytest.mark.parametrize(("codec", "suffix", "b_frames"), DAMAGE)
def test_behind_a_broken_keyframe_all_is_marked_up_to_the_next_and_nothing_else(
    codec: str, suffix: str, b_frames: int, keep: int, tmp_path: Path
) -> None:
    clip = Clip(codec=codec, suffix=suffix, num_frames=60, gop=12, b_frames=b_frames)
    path = make(tmp_path, clip)
    keys = [packet for packet in packets_of(path) if packet.is_key]
    overwrite(path, keys[2:3], keep=keep + (path.suffix == ".mkv") * 4, value=0)
    for way in WAYS:
        for fps in (3, 100):
            seen = look_or_refusal(path, way, fps=fps)
            assert {place for _, place, _, damaged in seen if damaged} == {
                place for _, place, _, _ in seen if 24 <= place < 36
            }
            assert all(number == place for _, place, number, damaged in seen if not damaged)


CABAC = {
    "h264": (("preset", "medium"), ("x264-params", "scenecut=0")),
    "hevc": (),
}
OPEN = {
    "h264": ("x264-params", "open-gop=1:min-keyint=12:sc_threshold=0"),
    "hevc": ("x265-params", "log-level=none:pools=1:open-gop=1:min-keyint=12:b-adapt=0"),
}


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
@pytest.mark.parametrize("codec", OPEN)
def test_a_clip_cut_out_of_an_open_group_begins_with_its_keyframe(
    codec: str, suffix: str, tmp_path: Path
) -> None:
    options = (OPEN[codec],)
    clip = Clip(codec=codec, suffix=suffix, num_frames=36, gop=12, b_frames=3, options=options)
    path = cut_at_keyframe(make(tmp_path, clip), tmp_path / f"cut{suffix}")
    truth = shown(path, may_fail=True)  # of what it cannot draw it complains
    seen = look(path, WAYS[0], fps=100)
    assert [number for _, _, number, _ in seen] == [number for _, number in truth]
    assert [time_s for time_s, _, _, _ in seen] == pytest.approx(
        [time_s for time_s, _ in truth], abs=0.002
    )


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4"])
def test_what_cannot_be_decoded_at_the_end_costs_nothing_before_it(
    codec: str, tmp_path: Path
) -> None:
    path = make(tmp_path, Clip(codec=codec, num_frames=36, gop=12, b_frames=2))
    packets = packets_of(path)
    overwrite(path, packets[24:], keep=0, value=0x55)
    ranks = sorted(packet.pts for packet in packets)
    broken = {ranks.index(packet.pts) for packet in packets[24:]}
    ways = [("pyav", "auto", 1, 1), ("pyav", "auto", 1, 2), ("pyav", "never", 2, 3)]
    for way in ways:
        seen = look(path, way, fps=100)
        assert {place for _, place, _, damaged in seen if damaged} == broken
        assert all(number == place for _, place, number, damaged in seen if not damaged)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".h264"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_behind_a_picture_with_a_hole_of_which_no_decoder_complains_all_is_marked(
    codec: str, suffix: str, tmp_path: Path
) -> None:
    clip = Clip(codec=codec, num_frames=36, gop=12, options=CABAC[codec])
    path = tmp_path / f"holed{suffix.replace('h264', codec)}"
    ffmpeg("-i", str(make(tmp_path, clip)), "-c", "copy", str(path))
    for broken in (12, 17):
        punched = tmp_path / f"{broken}{path.suffix}"
        punched.write_bytes(path.read_bytes())
        punch(punched, packets_of(path)[broken])
        for way in WAYS:
            seen = look_or_refusal(punched, way, fps=100)
            assert {place for _, place, _, damaged in seen if damaged} == {
                place for _, place, _, _ in seen if broken <= place < 24
            }
            assert all(number == place for _, place, number, damaged in seen if not damaged)


REFERRING = [
    *(("h264", suffix, 2) for suffix in (".mp4", ".mkv")),
    *(("hevc", ".mp4", 0), ("mpeg4", ".avi", 0), ("mpeg4", ".mp4", 2), ("vp9", ".webm", 0)),
]


@pytest.mark.parametrize("keep", [0, 5])
@pytest.mark.parametrize(("codec", "suffix", "b_frames"), REFERRING)
def test_behind_another_broken_picture_is_marked_what_is_drawn_upon_it_and_nothing_else(
    codec: str, suffix: str, b_frames: int, keep: int, tmp_path: Path
) -> None:
    clip = Clip(codec=codec, suffix=suffix, num_frames=48, gop=12, b_frames=b_frames)
    # A broken time in MPEG-4 leads FFmpeg's decoder to drop what follows, whoever refers to it.
    for is_referred_to in (True, False) if codec == "h264" else (True,):
        path = make(tmp_path, clip)
        packets = packets_of(path)
        [start, stop] = [at for at, packet in enumerate(packets) if packet.is_key][1:3]
        late = [
            packets[at].pts > max(packet.pts for packet in packets[:at])
            for at in range(start, stop)
        ]
        broken = start + late.index(is_referred_to, 3)
        overwrite(path, [packets[broken]], keep=keep + (suffix in (".mkv", ".webm")) * 4, value=0)
        ranks = sorted(packet.pts for packet in packets)
        drawn = [packets[broken]]
        if is_referred_to:  # what is shown before the next keyframe may be decoded after it
            drawn += packets[broken + 1 : stop]
            drawn += [packet for packet in packets[stop:] if packet.pts < packets[stop].pts]
        for way in WAYS:
            if seen := look_or_refusal(path, way, fps=100):
                assert {place for _, place, _, damaged in seen if damaged} == {
                    ranks.index(packet.pts) for packet in drawn
                }
                assert all(number == place for _, place, number, damaged in seen if not damaged)
