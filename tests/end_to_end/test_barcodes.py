"""The frame returned for a time is the one a player shows then: read off the frame itself."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, FailureCode
from pipeline.video.libraries import Reader
from pipeline.video.reader import Media, open_media
from pipeline.video.seeks import Seek
from pipeline.video.source import Source
from tests.media_factory import Clip, ffmpeg, make, read_barcode
from tests.plans import make_plan
from tests.readers import NEEDS_DECORD

GAPS_MS = (10, 500, 33, 33, 40, 700, 15, 15, 2000, 33, 33, 33, 120, 400, 33, 33, 10, 10, 10, 900)
UNEVEN = {"times": (0, *np.cumsum(GAPS_MS).tolist()), "ticks": 1000}
OPEN_GOP = (("x264-params", "open-gop=1:bframes=3:keyint=8:scenecut=0"),)
INTRA_REFRESH = (("x264-params", "intra-refresh=1:keyint=12"),)
INTERLACED = (("x264-params", "tff=1:interlaced=1"),)
FRAGMENTED = (("movflags", "frag_keyframe+empty_moov"),)

CODECS = {
    ".mp4": ("h264", "hevc", "vp9", "av1", "mpeg4"),
    ".mkv": ("h264", "hevc", "vp9", "av1", "mpeg4", "vp8", "ffv1"),
    ".webm": ("vp9", "av1", "vp8"),
    ".ts": ("h264", "hevc"),
    ".avi": ("h264", "mpeg4"),
    ".mov": ("h264", "mpeg4"),
}
CLIPS = {
    **{
        f"{codec}{suffix}": Clip(codec=codec, suffix=suffix)
        for suffix, codecs in CODECS.items()
        for codec in codecs
    },
    "mpeg2.ts": Clip(codec="mpeg2video", suffix=".ts", fps=25),
    "prores.mov": Clip(codec="prores", suffix=".mov", pixel_format="yuv422p10le"),
    "ivf": Clip(codec="vp9", suffix=".ivf"),
    "raw": Clip(suffix=".h264", b_frames=2),
    **{
        f"b-frames{suffix}": Clip(suffix=suffix, b_frames=3, gop=12)
        for suffix in (".mp4", ".mkv", ".ts", ".avi")
    },
    "b-frames-hevc": Clip(codec="hevc", b_frames=4, gop=12),
    "b-frames-mpeg4": Clip(codec="mpeg4", b_frames=2, gop=12),
    **{
        f"{name}{suffix}": clip
        for suffix in (".mp4", ".mkv", ".ts")
        for name, clip in (
            ("uneven", Clip(suffix=suffix, b_frames=2, **UNEVEN)),
            ("late-start", Clip(suffix=suffix, b_frames=2, offset_s=Fraction(5, 2))),
            ("huge-start", Clip(suffix=suffix, b_frames=2, offset_s=Fraction(40_000))),
            ("open-gop", Clip(suffix=suffix, num_frames=40, options=OPEN_GOP)),
            ("intra-refresh", Clip(suffix=suffix, num_frames=40, options=INTRA_REFRESH)),
        )
    },
    **{
        f"turned-{turn}{'-mirrored' * mirror}": Clip(rotation_deg=turn, is_mirrored=mirror)
        for turn in (0, 90, 180, 270)
        for mirror in (False, True)
    },
    "fragmented": Clip(b_frames=2, muxer_options=FRAGMENTED),
    "wide-pixels": Clip(sample_aspect_ratio=Fraction(2)),
    "interlaced": Clip(suffix=".ts", num_frames=36, b_frames=2, gop=12, options=INTERLACED),
}
# name: what decord itself shows or cannot open; it says so instead of showing other frames.
NOT_FOR_DECORD = {
    *(name for name in CLIPS if CLIPS[name].suffix in (".ts", ".ivf", ".h264")),
    *(name for name in CLIPS if CLIPS[name].codec == "av1"),
    *(name for name in CLIPS if CLIPS[name].is_mirrored),
    "b-frames.avi",  # its stamps are in the order of decoding: decord does not see that
}
WAYS = (
    ("pyav", "auto", 1, 1),
    ("pyav", "auto", None, 2),
    ("pyav", "never", 1, 2),
    ("pyav", "always", 1, 2),
    ("pyav", "auto", 4, 1),
    pytest.param("decord", "auto", 1, 1, marks=NEEDS_DECORD),
    pytest.param("decord", "auto", 4, 1, marks=NEEDS_DECORD),
)


@pytest.fixture(scope="module", params=CLIPS)
def named_clip(request, tmp_path_factory) -> tuple[str, Clip, Path]:
    clip = CLIPS[request.param]
    return request.param, clip, make(tmp_path_factory.mktemp("clips"), clip)


@pytest.mark.parametrize(("reader", "seek", "children", "threads"), WAYS)
def test_every_planned_time_has_the_frame_a_player_shows(
    named_clip, reader: Reader, seek: Seek, children: int | None, threads: int
) -> None:
    name, clip, path = named_clip
    with open_media(Source.of(path), DecodeLimits(threads=threads)) as media:
        assert len(media.info.pts) == len(clip.stamps)
        if reader == "decord" and name in NOT_FOR_DECORD:
            with pytest.raises(BadInput) as raised:
                look(media, fps=2, reader=reader)
            assert raised.value.code is FailureCode.NOT_DECODABLE
            return
        for fps in (2, clip.fps):
            for time_s, planned, seen in look(
                media, fps=fps, reader=reader, seek=seek, children=children
            ):
                assert seen == planned
                if "no_timestamps" not in media.info.flags:
                    assert planned in clip.numbers_at(time_s)


def look(
    media: Media,
    *,
    fps: float,
    reader: Reader = "pyav",
    seek: Seek = "auto",
    children: int | None = 1,
) -> list[tuple[float, int, int | None]]:
    """(time, number the plan means, number in the picture) of every planned frame."""
    plan = make_plan(media.info, source_id="test", fps=fps)
    looks: list[tuple[float, int, int | None]] = []
    for window in plan.windows:
        chunks = list(media.read(plan, window, reader=reader, seek=seek, children=children))
        assert not any(damage for chunk in chunks for damage in chunk.is_damaged)
        planned = np.searchsorted(media.info.pts, window.frame_pts).tolist()
        seen = [read_barcode(frame.numpy()) for chunk in chunks for frame in chunk.frames]
        looks += zip(window.times_s, planned, seen, strict=True)
    return looks


@pytest.mark.parametrize("seek", ["auto", "always", "never"])
def test_what_an_edit_list_cuts_away_is_not_shown(tmp_path: Path, seek: Seek) -> None:
    whole, cut = make(tmp_path, Clip(num_frames=40, gop=16, b_frames=2)), tmp_path / "cut.mp4"
    ffmpeg("-ss", "0.75", "-i", str(whole), "-c", "copy", str(cut))
    with open_media(Source.of(cut)) as media:
        looks = look(media, fps=12, seek=seek)
    assert sorted({seen for _, _, seen in looks}) == list(range(9, 40))


def test_joined_clips_are_shown_one_after_the_other(tmp_path: Path) -> None:
    one, other = (
        make(tmp_path, Clip(suffix=".ts"), "one"),
        make(tmp_path, Clip(suffix=".ts"), "two"),
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() + other.read_bytes())
    with open_media(Source.of(joined)) as media:
        assert "nonmonotonic" in media.info.flags
        assert [seen for _, _, seen in look(media, fps=12)] == [*range(24), *range(24)]
