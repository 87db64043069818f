"""Frames of a plan against decord and a plain PyAV loop; child start and resize included."""

from collections.abc import Iterator
from pathlib import Path

import torch

from jobs.lab.bench.bench_clips import make_clip
from jobs.lab.bench.measure import Row, milliseconds
from jobs.lab.bench.peers import decord_frames, pyav_frames
from jobs.timing import interleaved
from pipeline.config import DecodeLimits
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.types import SamplingPlan
from pipeline.video.libraries import is_installed
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.reader import open_media
from pipeline.video.source import Source

SPARSE_INTERVAL_S = 20.0
SPARSE_CLIP_S = 600
SPARSE_START_S = 5.0  # half-way between keyframes 10 s and 2 s apart: the average case


def rows(folder: Path, *, rounds: int) -> Iterator[Row]:
    """Yield the table's rows: dense sampling of a minute, sparse sampling of ten."""
    dense = make_clip(folder, duration_s=60)
    yield from _dense(dense, rounds)
    for keyframe_s, target in ((10.0, 3.0), (2.0, 8.0)):
        clip = make_clip(folder, duration_s=SPARSE_CLIP_S, keyframe_s=keyframe_s)
        yield from _sparse(clip, keyframe_s, target, rounds)


def _dense(clip: Path, rounds: int) -> Iterator[Row]:
    plan = _plan(clip, fps=2.0)
    times, size = plan.windows[0].times_s, plan.windows[0].grid.size
    shape = (size.height, size.width)
    peers = {
        "decord": lambda: decord_frames(clip, times, shape),
        "PyAV": lambda: pyav_frames(clip, times, shape),
    }
    if not is_installed("decord"):
        del peers["decord"]
    seconds = interleaved({"vidray": lambda: read_all(clip, fps=2.0), **peers}, rounds=rounds)
    for peer in peers:
        yield Row(
            what=f"{len(times)} frames at 2 fps of 60 s",
            vidray=milliseconds(seconds["vidray"]),
            peer=f"{peer} {milliseconds(seconds[peer])}",
            ratio=seconds[peer] / seconds["vidray"],
            target=1.0,
        )


def _sparse(clip: Path, keyframe_s: float, target: float, rounds: int) -> Iterator[Row]:
    fps = 1 / SPARSE_INTERVAL_S
    plan = _plan(clip, fps=fps, start_s=SPARSE_START_S)
    times, size = plan.windows[0].times_s, plan.windows[0].grid.size
    seconds = interleaved(
        {
            "vidray": lambda: read_all(clip, fps=fps, start_s=SPARSE_START_S),
            "PyAV": lambda: pyav_frames(clip, times, (size.height, size.width)),
        },
        rounds=rounds,
    )
    ratio = seconds["PyAV"] / seconds["vidray"]
    yield Row(
        what=f"a frame every {SPARSE_INTERVAL_S:g} s of 600 s, keyframes {keyframe_s:g} s apart",
        vidray=milliseconds(seconds["vidray"]),
        peer=f"PyAV {milliseconds(seconds['PyAV'])}",
        ratio=ratio,
        target=target,
    )
    allowed = _frames_in_clip(clip) / _frames_to_decode(clip, plan)
    yield Row(
        what="the same: share of what the keyframe spacing allows",
        vidray=f"{ratio:.1f} x",
        peer=f"{allowed:.1f} x fewer frames to decode",
        ratio=ratio / allowed,
        target=0.8,
    )


def read_all(clip: Path, *, fps: float, start_s: float | None = None) -> int:
    """Read every chunk of the plan and let go of it; returns the number of frames."""
    limits = DecodeLimits(threads=torch.get_num_threads())
    with open_media(Source.of(clip), limits) as media:
        plan = _planner(fps, start_s).plan(media.info, source_id="bench")
        chunks = (chunk for window in plan.windows for chunk in media.read(plan, window))
        return sum(len(chunk.frames) for chunk in chunks)


def _plan(clip: Path, *, fps: float, start_s: float | None = None) -> SamplingPlan:
    with open_media(Source.of(clip)) as media:
        return _planner(fps, start_s).plan(media.info, source_id="bench")


def _planner(fps: float, start_s: float | None) -> Planner:
    return Planner(family=QWEN2_VL, options=PlanOptions(fps=fps, start_s=start_s))


def _frames_in_clip(clip: Path) -> int:
    with open_media(Source.of(clip)) as media:
        return len(media.info.pts)


def _frames_to_decode(clip: Path, plan: SamplingPlan) -> int:
    """Frames from the keyframe before each wanted one up to it: no reader can decode fewer."""
    with open_media(Source.of(clip)) as media:
        keys = media.info.pts[media.info.is_key]
        needed = set[int]()
        for stamp in plan.windows[0].frame_pts:
            key = keys[keys <= stamp].max()
            inside = (media.info.pts >= key) & (media.info.pts <= stamp)
            needed.update(media.info.pts[inside].tolist())
        return len(needed)
