"""The picture at every planned time is the one FFmpeg shows, or it is marked: whatever the packets.

Packets may be hidden, cut away, joined, stamped in any order, damaged or without a picture; reader,
seeking, rate and number of children change nothing.
"""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, FailureCode
from pipeline.video.reader import Reader, open_media
from pipeline.video.seeks import Seek
from pipeline.video.source import Source
from tests.broken_media import (
    in_decoding_order,
    joined,
    overwrite,
    packed,
    packets_of,
    shuffled,
    with_edits,
    with_hidden,
    with_repeats,
    with_sound,
)
from tests.media_factory import Clip, make, read_barcode
from tests.plans import make_plan
from tests.player import numbers

Way = tuple[Reader, Seek, int | None, int]  # reader, seek, children, threads
WAYS: tuple[Way, ...] = (
    ("pyav", "auto", 1, 1),
    ("pyav", "auto", None, 2),
    ("pyav", "never", 1, 1),
    ("pyav", "never", 4, 1),
    ("pyav", "always", 1, 1),
    ("pyav", "auto", 4, 1),
    ("decord", "auto", 1, 1),
)
Seen = list[tuple[float, int, int | None, bool]]  # time, place of the frame, number in it, damaged


def look(path: Path, way: Way, *, fps: float, start_s: float | None = None) -> Seen:
    """Every planned frame, read in this way."""
    reader, seek, children, threads = way
    with open_media(Source.of(path), DecodeLimits(threads=threads)) as media:
        plan = make_plan(media.info, source_id="test", fps=fps, start_s=start_s)
        seen: Seen = []
        for window in plan.windows:
            chunks = list(media.read(plan, window, reader=reader, seek=seek, children=children))
            places = np.searchsorted(media.info.pts, window.frame_pts).tolist()
            pictures = [read_barcode(frame.numpy()) for chunk in chunks for frame in chunk.frames]
            damage = [mark for chunk in chunks for mark in chunk.is_damaged]
            seen += zip(window.times_s, places, pictures, damage, strict=True)
        return seen


def look_or_refusal(path: Path, way: Way, *, fps: float) -> Seen:
    """As look; of decord, which may refuse by name, nothing then."""
    try:
        return look(path, way, fps=fps)
    except BadInput as error:
        is_named = error.code is FailureCode.NOT_DECODABLE and "not with decord" in error.detail
        if way[0] != "decord" or not is_named:
            raise
        return []


B_FRAMES = {"b_frames": 2, "gop": 12, "num_frames": 48}
MPEG4 = {"codec": "mpeg4", "fps": 25, "num_frames": 24, "gop": 12}


def random_edits(folder: Path, chance: random.Random) -> Path:
    """Two or three spans of the clip in any order, repeated perhaps, with a pause perhaps."""
    clip = Clip(**{**B_FRAMES, "b_frames": chance.choice((0, 2))})
    edits = []
    for _ in range(chance.randint(1, 3)):
        edits.append((1000 * chance.randint(1, 2), 1024 * 12 * chance.randint(0, 1)))
        if chance.random() < 0.3:
            edits.append((500, -1))
    return with_edits(make(folder, clip), edits, folder / "edited.mp4")


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
}
NUM_SEEDS = 3


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_is_the_one_ffmpeg_shows(kind: str, seed: int, tmp_path: Path) -> None:
    chance = random.Random(f"{kind} {seed}")
    path = KINDS[kind](tmp_path, chance)
    truth = numbers(path)
    for way in WAYS:
        for fps in (chance.choice((1, 2, 5)), 100):
            for _, place, number, is_damaged in look_or_refusal(path, way, fps=fps):
                assert not is_damaged
                assert number == truth[place], (way, fps, place)


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
