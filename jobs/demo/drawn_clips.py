"""Scenes as real video files. Writes only: nobody else's file is ever opened here."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.random import Generator

from jobs.demo.render import render
from jobs.demo.world import Scene

FRAMES_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a scene becomes a file. width, height: even, in pixels."""

    width: int
    height: int
    fps: int = 24
    codec: str = "libx264"
    crf: int = 23
    suffix: str = ".mp4"


def random_encoding(rng: Generator, scene: Scene) -> Encoding:
    """128 to 640 pixels on a side, 12 to 60 fps, H.264 at CRF 18 to 35."""
    shorter = int(rng.integers(128, int(640 / max(scene.extent)) + 1))
    width, height = (2 * round(side * shorter / 2) for side in scene.extent)
    fps = int(rng.choice([12, 15, 24, 25, 30, 50, 60]))
    return Encoding(width=width, height=height, fps=fps, crf=int(rng.integers(18, 36)))


def write_clip(path: Path, scene: Scene, encoding: Encoding) -> None:
    """Render and encode the whole scene."""
    num_frames = round(scene.duration_s * encoding.fps)
    times = [index / encoding.fps for index in range(num_frames)]
    write_frames(path, drawn(scene, times, encoding), encoding)


def drawn(scene: Scene, times_s: list[float], encoding: Encoding) -> Iterator[np.ndarray]:
    """The scene's frames, (H, W, 3) uint8."""
    for start in range(0, len(times_s), FRAMES_AT_ONCE):
        some = times_s[start : start + FRAMES_AT_ONCE]
        yield from render(scene, some, height=encoding.height, width=encoding.width)


def write_frames(path: Path, frames: Iterator[np.ndarray], encoding: Encoding) -> None:
    """Encode frames (H, W, 3) uint8 as they come, the first at time 0."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoding.codec, rate=encoding.fps)
        if not isinstance(stream, av.VideoStream):
            raise TypeError(f"{encoding.codec} is no codec of videos")
        stream.width, stream.height = encoding.width, encoding.height
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, encoding.fps)
        stream.options = {"crf": str(encoding.crf), **SPEED.get(encoding.codec, {})}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


SPEED = {
    "libx264": {"preset": "veryfast", "threads": "1"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "b": "0"},
}
