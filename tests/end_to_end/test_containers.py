"""Every container of the listing is read, wherever it begins, as a player shows it."""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.video.reader import open_media
from pipeline.video.source import Source
from tests.broken_media import with_sound
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


def test_a_clip_cropped_by_its_container_is_shown_without_its_border(tmp_path: Path) -> None:
    source, padded = make(tmp_path, Clip()), tmp_path / "padded.mp4"
    pad = "pad=160:96:16:16:red"
    ffmpeg("-i", str(source), "-vf", pad, "-c:v", "libx264", "-qp", "0", str(padded))
    path = tmp_path / "cropped.mp4"
    path.write_bytes(with_clean_aperture(padded.read_bytes(), width=128, height=64))
    with open_media(Source.of(path)) as media:
        assert (media.info.width, media.info.height) == (128, 64)
        plan = make_plan(media.info, fps=12)
        frames = [f for w in plan.windows for c in media.read(plan, w) for f in c.frames]
    assert [read_barcode(frame.numpy()) for frame in frames] == list(range(24))
    assert all(np.ptp(frame.numpy(), axis=2).max() < 60 for frame in frames)  # grey: no red


def with_clean_aperture(data: bytes, *, width: int, height: int) -> bytes:
    """An mp4 whose `moov` comes last, with a clean aperture in the middle of its picture."""
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", width, 1, height, 1, 0, 1, 0, 1)
    at = data.index(b"avcC") - 4
    grown = bytearray(data[:at] + clap + data[at:])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        size_at = data.index(name, data.rindex(b"moov")) - 4
        size = int.from_bytes(grown[size_at : size_at + 4], "big") + len(clap)
        grown[size_at : size_at + 4] = size.to_bytes(4, "big")
    return bytes(grown)


def test_the_rate_of_a_raw_stream_is_its_own(tmp_path: Path) -> None:
    path = make(tmp_path, Clip(suffix=".h264", fps=60, num_frames=60, b_frames=2))
    with open_media(Source.of(path)) as media:
        assert "no_timestamps" in media.info.flags
        assert Fraction(media.info.time_base_den, media.info.time_base_num) == 60
