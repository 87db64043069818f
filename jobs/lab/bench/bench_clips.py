"""Clips to measure on, made by the static FFmpeg of the dev extra (imageio-ffmpeg)."""

import subprocess
from pathlib import Path

from jobs.demo.demo_archive import TRUTH_FILE, make_archive
from pipeline.errors import ConfigError

SEED = 1


def make_clip(
    folder: Path,
    *,
    duration_s: int,
    width: int = 640,
    height: int = 360,
    fps: int = 30,
    keyframe_s: float = 8.0,
) -> Path:
    """Encode a moving test picture with noise as H.264; returns its path. Kept for the next run."""
    path = folder / f"{width}x{height}-{fps}fps-{duration_s}s-key{keyframe_s:g}s.mp4"
    if path.exists():
        return path
    picture = f"testsrc2=size={width}x{height}:rate={fps}:duration={duration_s}"
    encoded = [
        "-f", "lavfi", "-i", f"{picture},noise=alls=6:allf=t",
        "-c:v", "libx264", "-preset", "veryfast", "-crf", "26", "-pix_fmt", "yuv420p",
        "-g", str(round(keyframe_s * fps)), "-sc_threshold", "0",
    ]  # fmt: skip
    return _write(path, encoded)


def repeat_clip(clip: Path, num_times: int) -> Path:
    """The clip so many times over, without encoding it again. Kept for the next run."""
    path = clip.with_name(f"{clip.stem}-x{num_times}.mp4")
    looped = ["-stream_loop", str(num_times - 1), "-i", str(clip), "-c", "copy"]
    return path if path.exists() else _write(path, looped)


def _write(path: Path, options: list[str]) -> Path:
    partial = path.with_suffix(".partial.mp4")
    subprocess.run([_ffmpeg(), "-v", "error", "-y", *options, str(partial)], check=True)
    partial.rename(path)
    return path


def make_demo_clips(folder: Path, num_clips: int) -> list[Path]:
    """An archive of vidray demo's clips, of several codecs. Kept for the next run."""
    archive = folder / f"archive-{num_clips}"
    if not (archive / TRUTH_FILE).exists():
        make_archive(archive, num_clips, SEED)
    return sorted(archive.glob("clip-*"))


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ConfigError("vidray bench needs the dev extra: pip install -e '.[dev]'") from error
    return str(imageio_ffmpeg.get_ffmpeg_exe())
