"""Small clips whose frames carry their own number as a barcode, in every container we read.

A frame is eight columns: bit 7 is on the left, white is one. The lower half shows the complement:
a frame that is turned or torn has no number, one that is mirrored has another.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

BITS = 8
FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi",
           ".ts": "mpegts", ".ivf": "ivf", ".h264": "h264"}  # fmt: skip
ENCODERS = {
    "h264": ("libx264", {"preset": "ultrafast", "crf": "18", "sc_threshold": "0"}),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:pools=1"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "20"}),
    "vp8": ("libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    "av1": ("libsvtav1", {"preset": "12", "svtav1-params": "lp=1"}),
    "mpeg4": ("mpeg4", {"qscale": "2", "flags": "+qscale", "global_quality": "236"}),
    "mpeg2video": ("mpeg2video", {}),
    "ffv1": ("ffv1", {}),
    "png": ("png", {}),
    "prores": ("prores_ks", {}),
}


# Sides whose tokens make a chunk of two temporal patches.
CHUNKED = {"width": 448, "height": 224}


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What to make. times: presentation times in units of 1 / ticks, one per frame."""

    codec: str = "h264"
    suffix: str = ".mp4"
    num_frames: int = 24
    width: int = 128
    height: int = 64
    fps: int = 12
    gop: int = 8
    b_frames: int = 0
    times: tuple[int, ...] | None = None
    ticks: int | None = None
    offset_s: Fraction = Fraction(0)
    rotation_deg: int = 0  # clockwise turn a player must apply
    is_mirrored: bool = False  # left to right, after the turn
    sample_aspect_ratio: Fraction | None = None
    pixel_format: str = "yuv420p"
    options: tuple[tuple[str, str], ...] = ()
    muxer_options: tuple[tuple[str, str], ...] = ()

    @property
    def time_base(self) -> Fraction:
        return Fraction(1, self.ticks or self.fps)

    @property
    def stamps(self) -> tuple[int, ...]:
        return self.times if self.times is not None else tuple(range(self.num_frames))

    @property
    def times_s(self) -> list[float]:
        """When each frame is shown, from the first frame on."""
        return [float((stamp - self.stamps[0]) * self.time_base) for stamp in self.stamps]

    def numbers_at(self, time_s: float) -> set[int]:
        """The number of the frame shown at this time; at a change of frames, to the ms, either."""
        return {
            max(number for number, shown_s in enumerate(self.times_s) if shown_s <= at_s)
            for at_s in (max(0.0, time_s - 1e-3), time_s + 1e-3)
        }


def barcode(number: int, *, width: int, height: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: the picture of a number."""
    bits = np.array([number >> bit & 1 for bit in reversed(range(BITS))], np.uint8)
    columns = np.arange(width) * BITS // width
    row = 40 + 175 * bits[columns]
    upper = np.broadcast_to(row, (height // 2, width))
    lower = np.broadcast_to(255 - row, (height - height // 2, width))
    return np.concatenate([upper, lower])[:, :, None].repeat(3, axis=2)


def read_barcode(frame: NDArray[np.uint8]) -> int | None:
    """The number in a picture of any size, (H, W, 3); None when the two halves disagree."""
    height, width = frame.shape[:2]
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    bits = [
        frame[int(height * at) - 2 : int(height * at) + 3, :, 1][:, centres].mean(axis=0) > 127
        for at in (0.25, 0.75)
    ]
    if (bits[0] == bits[1]).any():
        return None
    return int(sum(int(bit) << BITS - 1 - place for place, bit in enumerate(bits[0])))


def make(folder: Path, clip: Clip, name: str = "clip") -> Path:
    """Encode and mux the clip."""
    path = folder / f"{name}{clip.suffix}"
    pictures = [barcode(n, width=clip.width, height=clip.height) for n in range(len(clip.stamps))]
    if clip.rotation_deg or clip.is_mirrored:
        # What is stored is what the player's turn, and then its mirror, undo.
        if clip.is_mirrored:
            pictures = [picture[:, ::-1] for picture in pictures]
        pictures = [np.rot90(picture, clip.rotation_deg // 90) for picture in pictures]
    write(path, pictures, clip)
    return path


@contextmanager
def keeping_priority() -> Iterator[None]:
    """Around encoders: SVT-AV1 leaves root's thread at real-time priority, and with it every
    process that a test starts then, before which nothing else on the machine has a turn.
    """
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


@keeping_priority()
def write(path: Path, pictures: Sequence[NDArray[np.uint8]], clip: Clip) -> None:
    """Encode these pictures as the clip says."""
    encoder, options = ENCODERS[clip.codec]
    with av.open(
        str(path), "w", format=FORMATS[clip.suffix], options=dict(clip.muxer_options)
    ) as container:
        stream = container.add_stream(encoder, rate=clip.fps, options=options | dict(clip.options))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = clip.pixel_format
        stream.time_base = stream.codec_context.time_base = clip.time_base
        stream.gop_size = clip.gop
        stream.max_b_frames = clip.b_frames
        stream.codec_context.thread_count = 1
        if clip.sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = clip.sample_aspect_ratio
        if clip.rotation_deg or clip.is_mirrored:
            stream.set_display_rotation(-clip.rotation_deg, hflip=clip.is_mirrored)
        for picture, stamp in zip(pictures, clip.stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = stamp + int(clip.offset_s / clip.time_base)
            frame.time_base = clip.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def ffmpeg(*arguments: str) -> None:
    """The wheel's static ffmpeg program, for what PyAV cannot make."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error", *arguments]
    subprocess.run(command, check=True, timeout=60)
