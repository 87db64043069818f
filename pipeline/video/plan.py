"""SamplingPlan: which frames, at what size, in which windows and chunks. No pixel is touched.

Pure arithmetic on the header and the packet index, so the plan is the same wherever it is made, and
frozen before decoding starts: the decoder's positions and its token count rest on it.
"""

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import BadInput, ConfigError, FailureCode
from pipeline.types import TEMPORAL, MediaInfo, SamplingPlan, Size
from pipeline.video import paper
from pipeline.video.budget import CHUNK_TOKENS, MAX_PLANNED_FRAMES, MAX_WINDOW_TOKENS, Budget
from pipeline.video.presets import PRESETS, Preset
from pipeline.video.timeline import Samples, Timeline, seconds
from pipeline.video.windows import cut_windows

PRESET_NAMES = ("paper", *PRESETS)


def make_plan(
    media: MediaInfo,
    *,
    source_id: str,
    preset: str = "paper",
    fps: float = 2.0,
    long: Literal["fit", "windows"] = "fit",
    overlap_s: float = 0.0,
    start_s: float | None = None,
    end_s: float | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    max_window_tokens: int = MAX_WINDOW_TOKENS,
    max_frames: int | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> SamplingPlan:
    """Return the frozen plan of [start_s, end_s) of a video, or of an image.

    long: what becomes of more frames than a window takes. "fit" spreads fewer and smaller frames
    over the whole video; "windows" keeps fps and size, opens as many windows as that needs, and
    lets neighbours share overlap_s, at most half a window. min_pixels, max_pixels: of one frame,
    instead of the preset's; under "fit" min_pixels costs frames before it gives way. max_frames:
    of one window. "windows" and max_window_tokens belong to the paper preset; the other presets
    keep their own budgets.

    Raises BadInput (ASPECT_RATIO, EMPTY_RANGE, TOKEN_BUDGET, TOO_MANY_FRAMES, TRUNCATED) where the
    video is at fault, ConfigError where an argument is.
    """
    budget = Budget(
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        max_frames=max_frames,
        max_window_tokens=max_window_tokens,
        chunk_tokens=chunk_tokens,
    )
    check_sampling(preset=preset, fps=fps, long=long, overlap_s=overlap_s, range_s=(start_s, end_s))
    if media.is_still:
        timeline = Timeline.of(media, start_s=None, end_s=None)
        layout = _still(timeline, preset, budget=budget)
    else:
        timeline = Timeline.of(media, start_s=start_s, end_s=end_s)
        if preset in PRESETS:
            layout = _reference(timeline, PRESETS[preset], fps=fps, budget=budget)
        elif long == "fit":
            layout = _fit(timeline, fps=fps, budget=budget)
        else:
            layout = _windows(timeline, fps=fps, overlap_s=overlap_s, budget=budget)
    samples = layout.samples.padded()
    return SamplingPlan(
        source_id=source_id,
        preset=preset,
        fps=_sampled_fps(samples, timeline),
        source_width=media.width,
        source_height=media.height,
        duration_s=media.duration_s,
        is_still=media.is_still,
        time_base_num=media.time_base_num,
        time_base_den=media.time_base_den,
        windows=cut_windows(
            samples,
            layout.size,
            start_s=float(timeline.start),
            end_s=float(timeline.end),
            max_steps=layout.max_steps or len(samples.pts) // TEMPORAL,
            overlap_steps=layout.overlap_steps,
            chunk_tokens=chunk_tokens,
        ),
        flags=media.flags,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Frames and their size; max_steps bounds a window, None is one window for all."""

    samples: Samples
    size: Size
    max_steps: int | None = None
    overlap_steps: int = 0


def _still(timeline: Timeline, preset: str, *, budget: Budget) -> _Layout:
    source = _source_size(timeline)
    if preset in PRESETS:
        size = PRESETS[preset].still_size(source, budget=budget)
    else:
        size = paper.still_size(source, budget=budget)
    return _Layout(samples=timeline.by_position([0]), size=size)


def _fit(timeline: Timeline, *, fps: float, budget: Budget) -> _Layout:
    """Spread what one window takes over the whole timeline."""
    source = _source_size(timeline)
    count = paper.num_frames(
        len(timeline.shown),
        wanted=timeline.duration * seconds(fps),
        limit=paper.max_frames(source, budget=budget),
    )
    size = paper.frame_size(source, num_steps=_num_steps(count), budget=budget)
    return _Layout(samples=timeline.by_time(count), size=size)


def _windows(timeline: Timeline, *, fps: float, overlap_s: float, budget: Budget) -> _Layout:
    """Keep the rate and the size; as many windows as they need."""
    source = _source_size(timeline)
    paper.max_frames(source, budget=budget)  # refuses a min_pixels beyond any window
    count = paper.num_frames(len(timeline.shown), wanted=timeline.duration * seconds(fps))
    if count > MAX_PLANNED_FRAMES:
        detail = f"{count} frames at {fps:g} fps; limit {MAX_PLANNED_FRAMES}"
        raise BadInput(FailureCode.TOO_MANY_FRAMES, detail)
    size = paper.frame_size(source, num_steps=1, budget=budget)
    overlap_frames = seconds(overlap_s) * count / timeline.duration if timeline.duration else 0
    return _Layout(
        samples=timeline.by_time(count),
        size=size,
        max_steps=paper.steps_per_window(size, budget=budget),
        overlap_steps=round(overlap_frames / TEMPORAL),
    )


def _reference(timeline: Timeline, preset: Preset, *, fps: float, budget: Budget) -> _Layout:
    """Sample by frame index, as the other front ends do."""
    stamped = timeline.stamped
    if not stamped:
        detail = f"no frame between {float(timeline.start)} s and {float(timeline.end)} s"
        raise BadInput(FailureCode.EMPTY_RANGE, detail)
    seconds_per_frame = seconds(timeline.media.duration_s) / timeline.media.pts.size
    count = preset.num_frames(
        len(stamped),
        wanted=len(stamped) * seconds_per_frame * seconds(fps),
        max_frames=budget.max_frames,
    )
    chosen = [stamped[index] for index in preset.indexes(len(stamped), count)]
    num_frames = _num_steps(count) * TEMPORAL
    size = preset.frame_size(_source_size(timeline), num_frames=num_frames, budget=budget)
    return _Layout(samples=timeline.by_position(chosen), size=size)


def _source_size(timeline: Timeline) -> Size:
    return Size(timeline.media.height, timeline.media.width)


def _sampled_fps(samples: Samples, timeline: Timeline) -> float:
    if timeline.media.is_still or not timeline.duration:
        return 0.0
    return float(len(samples.pts) / timeline.duration)


def _num_steps(num_frames: int) -> int:
    return -(-num_frames // TEMPORAL)


def check_sampling(
    *,
    preset: str,
    fps: float,
    long: str,
    overlap_s: float,
    range_s: tuple[float | None, float | None],
) -> None:
    """Raise ConfigError for arguments of make_plan that no video could make right."""
    checks = {
        f"preset must be one of {', '.join(PRESET_NAMES)}, got {preset!r}": preset in PRESET_NAMES,
        f"long must be fit or windows, got {long!r}": long in ("fit", "windows"),
        f"long={long} needs the paper preset": long == "fit" or preset == "paper",
        f"fps must be above 0, got {fps}": math.isfinite(fps) and fps > 0,
        f"overlap_s must be 0 or more, got {overlap_s}": math.isfinite(overlap_s)
        and overlap_s >= 0,
        f"overlap_s needs long=windows, got {overlap_s}": long == "windows" or overlap_s == 0,
        f"start_s and end_s must be finite, got {range_s}": all(
            math.isfinite(bound) for bound in range_s if bound is not None
        ),
    }
    for message, holds in checks.items():
        if not holds:
            raise ConfigError(message)
