"""Every container of the listing is read, wherever it begins, as a player shows it."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadInput, FailureCode
from pipeline.video.reader import open_media, probe
from pipeline.video.source import Source
from tests.broken_media import (
    clean_aperture,
    joined,
    pixel_crop,
    with_sound,
    with_two_descriptions,
)
from tests.looks import WAYS, look
from tests.media_factory import Clip, ffmpeg, make, read_barcode
from tests.plans import make_plan

Build = Callable[[Path], Path]


def coded(name: str, *options: str) -> Build:
    """The clip as FFmpeg's program writes it into a container of this name."""

    def build(folder: Path) -> Path:
        source = make(folder, Clip(num_frames=24, fps=25, gop=12))
        ffmpeg("-i", str(source), *options, str(folder / name))
        return folder / name

    return build


def transport(*, packet: int, start: int = 0) -> Build:
    """A transport stream of packets of so many bytes that begins inside one."""

    def build(folder: Path) -> Path:
        data = make(folder, Clip(suffix=".ts", fps=25)).read_bytes()
        before, behind = {188: (0, 0), 192: (4, 0), 204: (0, 16)}[packet]
        packets = [data[at : at + 188] for at in range(0, len(data), 188)]
        padded = b"".join(bytes(before) + one + bytes(behind) for one in packets)
        path = folder / "stream.ts"
        path.write_bytes(padded[-packet + start :] * bool(start) + padded)
        return path

    return build


def box_first(folder: Path) -> Path:
    """A `uuid` box before all others: what the chunk table says has to move with it."""
    path = make(folder, Clip(fps=25))
    box = (24).to_bytes(4, "big") + b"uuid" + bytes(16)
    data = bytearray(path.read_bytes())
    at = data.index(b"stco") + 8
    for place in range(int.from_bytes(data[at : at + 4], "big")):
        entry = slice(at + 4 + 4 * place, at + 8 + 4 * place)
        data[entry] = (int.from_bytes(data[entry], "big") + len(box)).to_bytes(4, "big")
    path.write_bytes(box + data)
    return path


def text_last(folder: Path) -> Path:
    path = make(folder, Clip(fps=25))
    path.write_bytes(path.read_bytes() + b"made by a phone, with love")
    return path


CONTAINERS: dict[str, Build] = {
    "flv": coded("a.flv", "-c:v", "flv", "-q:v", "2"),
    "flv h264": coded("a.flv", "-c", "copy"),
    "wmv": coded("a.wmv", "-c:v", "wmv2", "-q:v", "2"),
    "asf": coded("a.asf", "-c:v", "msmpeg4", "-q:v", "2"),
    "ogg": coded("a.ogv", "-c:v", "libtheora", "-q:v", "8"),
    "3gp": coded("a.3gp", "-c", "copy"),
    "mxf": coded("a.mxf", "-c:v", "mpeg2video", "-q:v", "2"),
    "vob": coded("a.vob", "-c:v", "mpeg2video", "-q:v", "2"),
    "mpeg-1": coded("a.m1v", "-c:v", "mpeg1video", "-q:v", "2", "-bf", "2"),
    "mpeg-2": coded("a.m2v", "-c:v", "mpeg2video", "-q:v", "2", "-bf", "2"),
    "sorenson": coded("a.mov", "-c:v", "svq1", "-q:v", "2"),
    "cinepak": coded("a.avi", "-c:v", "cinepak"),
    "dnxhr": coded(
        "a.mov", "-c:v", "dnxhd", "-profile:v", "dnxhr_sq", "-vf", "scale=512:256,format=yuv422p"
    ),
    "huffyuv": coded("a.avi", "-c:v", "huffyuv"),
    "188": transport(packet=188, start=100),
    "192": transport(packet=192, start=50),
    "204": transport(packet=204),
    "uuid first": box_first,
    "text last": text_last,
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_frames_of_every_container_come_in_order(name: str, tmp_path: Path) -> None:
    path = CONTAINERS[name](tmp_path)
    with open_media(Source.of(path)) as media:
        assert "truncated" not in media.info.flags
        plan = make_plan(media.info, fps=25)
        pictures = [
            read_barcode(frame.numpy())
            for window in plan.windows
            for chunk in media.read(plan, window)
            for frame in chunk.frames
        ]
    assert pictures == list(range(24))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_time_0_is_where_the_file_starts_and_the_last_picture_is_held(
    suffix: str, tmp_path: Path
) -> None:
    clip = Clip(num_frames=24, b_frames=2)
    path = with_sound(tmp_path, clip, suffix=suffix, video_at_s=2, sound_s=7)
    with open_media(Source.of(path)) as media:
        assert media.info.offset_s == pytest.approx(2, abs=0.002)
        assert media.info.duration_s == pytest.approx(5, abs=0.1)

        def seen(**options: float) -> dict[float, int | None]:
            plan = make_plan(media.info, **options)
            [window] = plan.windows
            chunks = list(media.read(plan, window))
            pictures = [read_barcode(frame.numpy()) for one in chunks for frame in one.frames]
            return dict(zip(window.times_s, pictures, strict=True))

        assert min(seen()) >= 2
        assert seen(start_s=3.0, end_s=3.5)[3.0] == 12
        assert set(seen(start_s=6.0).values()) == {23}


@pytest.mark.parametrize("crop", [clean_aperture, pixel_crop])
def test_a_clip_cropped_by_its_container_is_shown_without_its_border(
    crop: Build, tmp_path: Path
) -> None:
    path = crop(tmp_path)
    with open_media(Source.of(path)) as media:
        assert (media.info.width, media.info.height) == (128, 64)
        plan = make_plan(media.info, fps=12)
        frames = [f for w in plan.windows for c in media.read(plan, w) for f in c.frames]
    assert [read_barcode(frame.numpy()) for frame in frames] == list(range(24))
    assert all(np.ptp(frame.numpy(), axis=2).max() < 60 for frame in frames)  # grey: no red


def test_the_rate_of_a_raw_stream_is_its_own(tmp_path: Path) -> None:
    path = make(tmp_path, Clip(suffix=".h264", fps=60, num_frames=60, b_frames=2))
    with open_media(Source.of(path)) as media:
        assert "no_timestamps" in media.info.flags
        assert Fraction(media.info.time_base_den, media.info.time_base_num) == 60


def test_empty_chunks_of_avi_go_on_showing_the_frame_before(tmp_path: Path) -> None:
    clip = Clip(codec="mpeg4", suffix=".avi", times=tuple(range(0, 24 * 24, 24)), ticks=600)
    with open_media(Source.of(make(tmp_path, clip))) as media:
        assert "count_mismatch" not in media.info.flags
        assert media.info.duration_s == pytest.approx(24 * 24 / 600)
        assert len(media.info.pts) == 24


@pytest.mark.parametrize("codecs", [("mpeg2video", "h264"), ("h264", "mpeg2video")])
def test_a_transport_stream_that_changes_its_codec_is_refused_by_name(
    codecs: tuple[str, str], tmp_path: Path
) -> None:
    """Either decoder makes garbage of the other's pictures, or nothing."""
    path = joined(tmp_path, [Clip(suffix=".ts", codec=codec) for codec in codecs])
    second = (tmp_path / "part0.ts").stat().st_size
    with pytest.raises(BadInput, match=r"changes from \S+ to \S+ at byte \d+: cut") as raised:
        probe(Source.of(path))
    assert raised.value.code is FailureCode.UNSUPPORTED_CODEC
    at = int(raised.value.detail.split(" at byte ")[1].split(":")[0])
    assert second <= at < second + 4 * 188


def test_a_transport_stream_that_goes_on_under_another_number_is_marked(tmp_path: Path) -> None:
    """It is shown as FFmpeg's program does, up to there; streams may join at any time."""
    other = (
        ("mpegts_start_pid", "0x200"),
        ("mpegts_pmt_start_pid", "0x1100"),
        ("mpegts_service_id", "7"),
    )
    path = joined(tmp_path, [Clip(suffix=".ts"), Clip(suffix=".ts", muxer_options=other)])
    info = probe(Source.of(path))
    assert len(info.pts) == Clip().num_frames
    assert "multi_stream" in info.flags


@pytest.mark.parametrize("codec", ["mpeg4", "hevc"])
def test_an_mp4_that_changes_its_codec_is_refused_by_name(codec: str, tmp_path: Path) -> None:
    """FFmpeg leaves out what follows: half of the video, and nothing said."""
    path = with_two_descriptions(tmp_path, (Clip(), Clip(codec=codec)))
    with pytest.raises(BadInput, match=r"changes from avc1 to \w+ at 2\.000 s: cut") as raised:
        probe(Source.of(path))
    assert raised.value.code is FailureCode.UNSUPPORTED_CODEC


@pytest.mark.parametrize("width", [64, 128, 256])
def test_an_mp4_that_changes_its_size_is_read_to_its_end(width: int, tmp_path: Path) -> None:
    second = Clip(width=width, height=width // 2, options=(("preset", "medium"),))
    path = with_two_descriptions(tmp_path, (Clip(), second))
    for way in WAYS[:-1]:
        seen = look(path, way, fps=12)
        assert [number for _, _, number, _ in seen] == [*range(24), *range(24)]
        assert not any(damaged for _, _, _, damaged in seen)


@pytest.mark.parametrize("movflags", [None, "frag_keyframe+empty_moov+default_base_moof"])
def test_what_is_left_out_of_mp4s_joined_byte_for_byte_is_marked(
    movflags: str | None, tmp_path: Path
) -> None:
    """A player shows the first movie, and of fragments those whose times go on."""
    part = make(tmp_path, Clip())
    if movflags is not None:
        whole = tmp_path / "fragments.mp4"
        ffmpeg("-i", str(part), "-c", "copy", "-movflags", movflags, str(whole))
        part = whole
    assert "rest_unread" not in probe(Source.of(part)).flags
    path = tmp_path / "twice.mp4"
    path.write_bytes(part.read_bytes() * 2)
    info = probe(Source.of(path))
    assert len(info.pts) < 48
    assert "rest_unread" in info.flags


def test_fragments_whose_times_step_back_are_marked_as_left_out(tmp_path: Path) -> None:
    part, whole = make(tmp_path, Clip()), tmp_path / "whole.mp4"
    movflags = "frag_keyframe+empty_moov+default_base_moof"
    ffmpeg("-i", str(part), "-c", "copy", "-movflags", movflags, str(whole))
    data = bytearray(whole.read_bytes())
    at = data.rindex(b"tfdt") + 8  # version 1: eight bytes
    data[at : at + 8] = bytes(8)
    whole.write_bytes(data)
    info = probe(Source.of(whole))
    assert len(info.pts) == 16
    assert "rest_unread" in info.flags
