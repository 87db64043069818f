"""What FFmpeg's own program shows of a file: the reference for which picture stands where."""

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from tests.media_factory import read_barcode

_SHOWN = re.compile(r"\] n: *\d+ .*? pts_time:(\S+) .*? s:(\d+)x(\d+) ")


def shown(path: Path, *, may_fail: bool = False) -> list[tuple[float, int | None]]:
    """(time in seconds, number in the picture) of every picture, in the order of output."""
    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-threads", "1", "-i", str(path)),
        *("-map", "0:v:0", "-fps_mode", "passthrough", "-vf", "showinfo"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-"),
    ]
    done = subprocess.run(command, capture_output=True, timeout=60, check=not may_fail)
    pixels, at, pictures = np.frombuffer(done.stdout, np.uint8), 0, []
    for time, width, height in _SHOWN.findall(done.stderr.decode(errors="replace")):
        shape = (int(height), int(width), 3)
        pictures.append((float(time), read_barcode(pixels[at:][: np.prod(shape)].reshape(shape))))
        at += int(np.prod(shape))
    return pictures


def numbers(path: Path, *, may_fail: bool = False) -> list[int | None]:
    """The numbers of the pictures, in the order of output."""
    return [number for _, number in shown(path, may_fail=may_fail)]
