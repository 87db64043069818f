"""Colours are those a player shows: tagged, or by its rule for HD; two fields are one picture."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.video.reader import open_media
from pipeline.video.source import Source
from tests.media_factory import ffmpeg
from tests.plans import make_plan

SATURATED = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30))
UNTAGGED = "setparams=colorspace=unknown:color_primaries=unknown:color_trc=unknown"


def bars(folder: Path, *, lines: int, matrix: str, tags: str) -> Path:
    """Four saturated bars, coded by this matrix and tagged as said."""
    path, width = folder / "bars.mp4", lines * 4 // 3 // 16 * 16
    colours = [f"color=0x{r:02x}{g:02x}{b:02x}:s={width // 4}x{lines}" for r, g, b in SATURATED]
    inputs = [word for colour in colours for word in ("-f", "lavfi", "-t", "0.2", "-i", colour)]
    stacked = f"[0][1][2][3]hstack=4,format=gbrp,scale=out_color_matrix={matrix},format=yuv420p"
    ffmpeg(
        *inputs, "-filter_complex", f"{stacked},{tags}", "-c:v", "libx264", "-qp", "4", str(path)
    )  # fmt: skip
    return path


@pytest.mark.parametrize(
    ("lines", "matrix", "tags", "is_guessed"),
    [
        (720, "bt709", UNTAGGED, True),
        (576, "smpte170m", UNTAGGED, False),
        (720, "smpte170m", "setparams=colorspace=smpte170m", False),
        (576, "bt709", "setparams=colorspace=bt709", False),
    ],
)
def test_colours_are_those_the_clip_was_made_of(
    lines: int, matrix: str, tags: str, is_guessed: bool, tmp_path: Path
) -> None:
    path = bars(tmp_path, lines=lines, matrix=matrix, tags=tags)
    with open_media(Source.of(path)) as media:
        assert ("colour_guessed" in media.info.flags) is is_guessed
        plan = make_plan(media.info)
        frame = next(media.read(plan, plan.windows[0])).frames[0].numpy().astype(int)
    height, width = frame.shape[:2]
    for place, colour in enumerate(SATURATED):
        seen = frame[height // 4 : height // 2, width * (2 * place + 1) // 8]
        assert np.abs(seen - colour).max() <= 6  # the other matrix is 20 and more away


def test_interlaced_chroma_is_that_of_ffmpegs_program(tmp_path: Path) -> None:
    path = tmp_path / "interlaced.mp4"
    picture = "testsrc2=size=448x224:rate=24:duration=1"
    ffmpeg(
        "-f", "lavfi", "-i", picture, "-vf", "tinterlace=interleave_top,format=yuv420p",
        "-c:v", "libx264", "-flags", "+ildct+ilme", "-qp", "8", "-bf", "0", str(path),
    )  # fmt: skip
    truth = as_ffmpeg_shows(path, width=448, height=224)
    with open_media(Source.of(path)) as media:
        assert "interlaced" in media.info.flags
        plan = make_plan(media.info, fps=24)
        chunks = [chunk for window in plan.windows for chunk in media.read(plan, window)]
        frames = np.concatenate([chunk.frames.numpy() for chunk in chunks])
    assert frames.shape == truth.shape
    difference = np.abs(frames.astype(int) - truth)
    assert difference.max() <= 12  # of rounding; fields converted one by one are 60 away
    assert difference.mean() < 1


def as_ffmpeg_shows(path: Path, *, width: int, height: int) -> NDArray[np.uint8]:
    """(T, H, W, 3) uint8."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-nostdin", "-loglevel", "error", "-i", str(path)]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
