"""How Qwen2-VL wants to be shown videos: geometry, limits, and which frames at what size."""

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import BadInput, ConfigError, FailureCode
from pipeline.families.qwen2_vl import paper
from pipeline.families.qwen2_vl.budget import FrameBudget
from pipeline.families.qwen2_vl.config import load_config
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.preprocessor_config import load_preprocessing
from pipeline.families.qwen2_vl.presets import PRESETS, Preset
from pipeline.types import Geometry, Size
from pipeline.video.family import Selection
from pipeline.video.options import PlanOptions
from pipeline.video.timeline import Timeline, seconds

PRESET_NAMES = ("paper", *PRESETS)
MAX_PLANNED_FRAMES = 1_000_000  # six days at 2 fps; a plan lists its frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen2VLFamily:
    """Qwen2-VL as published; `load_family` has it as a checkpoint wants it.

    min_pixels, max_pixels: of one picture, where the checkpoint was trained on smaller ones only.
    """

    geometry: Geometry = GEOMETRY
    max_window_tokens: int = paper.MAX_WINDOW_TOKENS
    max_window_frames: int = 768
    min_pixels: int | None = None
    max_pixels: int | None = None

    def check(self, options: PlanOptions) -> None:
        """Raise ConfigError for options that no video could make right."""
        asked_tokens = options.max_window_tokens or self.max_window_tokens
        checks = {
            f"preset must be one of {', '.join(PRESET_NAMES)}, got {options.preset!r}": (
                options.preset in PRESET_NAMES
            ),
            f"max_window_tokens {asked_tokens} is above {self.max_window_tokens}": (
                asked_tokens <= self.max_window_tokens
            ),
        }
        for message, holds in checks.items():
            if not holds:
                raise ConfigError(message)
        self.budget(options)

    def budget(self, options: PlanOptions) -> FrameBudget:
        """What is asked for, within the checkpoint's own limits of one picture.

        Qwen2-VL's limits allow every size a preset asks for, so they replace none. A checkpoint
        that was trained on smaller pictures has to be shown such.
        """
        min_pixels, max_pixels = options.min_pixels, options.max_pixels
        usual = paper.VIDEO.pixels(self.geometry)
        if max_pixels is None and self.max_pixels is not None and self.max_pixels < usual.most:
            min_pixels, max_pixels = min_pixels or self.min_pixels, self.max_pixels
        return FrameBudget(
            geometry=self.geometry,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            max_frames=self.max_window_frames,
            max_tokens=options.max_window_tokens or self.max_window_tokens,
        )

    def select(self, timeline: Timeline, options: PlanOptions) -> Selection:
        """Choose frames and their size; BadInput where the video is at fault."""
        budget = self.budget(options)
        preset = PRESETS.get(options.preset)
        if timeline.media.is_still:
            return _still(timeline, preset, budget=budget)
        if preset is not None:
            return _reference(timeline, preset, fps=options.fps, budget=budget)
        if options.long == "fit":
            return _fit(timeline, fps=options.fps, budget=budget)
        return _windows(timeline, fps=options.fps, overlap_s=options.overlap_s, budget=budget)


QWEN2_VL = Qwen2VLFamily()


def load_family(folder: Path) -> Qwen2VLFamily:
    """Qwen2-VL as the checkpoint in this folder wants it; CheckpointError if it is none."""
    geometry = load_config(folder).vision.geometry
    pixels = load_preprocessing(folder, geometry=geometry)
    return replace(
        QWEN2_VL,
        geometry=geometry,
        min_pixels=pixels.min_pixels,
        max_pixels=pixels.max_pixels,
    )


def _still(timeline: Timeline, preset: Preset | None, *, budget: FrameBudget) -> Selection:
    size_of = preset.still_size if preset else paper.still_size
    size = size_of(_source_size(timeline), budget=budget)
    return Selection(samples=timeline.by_position([0]), size=size)


def _fit(timeline: Timeline, *, fps: float, budget: FrameBudget) -> Selection:
    """Spread what one window takes over the whole timeline."""
    source, geometry = _source_size(timeline), budget.geometry
    count = paper.num_frames(
        len(timeline.shown),
        wanted=timeline.duration * seconds(fps),
        temporal=geometry.temporal,
        limit=paper.max_frames(source, budget=budget),
    )
    size = paper.frame_size(source, num_steps=geometry.num_steps(count), budget=budget)
    return Selection(samples=timeline.by_time(count), size=size)


def _windows(timeline: Timeline, *, fps: float, overlap_s: float, budget: FrameBudget) -> Selection:
    """Keep the rate and the size; as many windows as they need."""
    source, temporal = _source_size(timeline), budget.geometry.temporal
    paper.max_frames(source, budget=budget)  # refuses a min_pixels beyond any window
    wanted = timeline.duration * seconds(fps)
    count = paper.num_frames(len(timeline.shown), wanted=wanted, temporal=temporal)
    if count > MAX_PLANNED_FRAMES:
        detail = f"{count} frames at {fps:g} fps; limit {MAX_PLANNED_FRAMES}"
        raise BadInput(FailureCode.TOO_MANY_FRAMES, detail)
    size = paper.frame_size(source, num_steps=1, budget=budget)
    overlap_frames = seconds(overlap_s) * count / timeline.duration if timeline.duration else 0
    return Selection(
        samples=timeline.by_time(count),
        size=size,
        max_steps=paper.steps_per_window(size, budget=budget),
        overlap_steps=round(overlap_frames / temporal),
    )


def _reference(timeline: Timeline, preset: Preset, *, fps: float, budget: FrameBudget) -> Selection:
    """Sample by frame index, as the other front ends do."""
    stamped = timeline.stamped
    if not stamped:
        detail = f"no frame between {float(timeline.start)} s and {float(timeline.end)} s"
        raise BadInput(FailureCode.EMPTY_RANGE, detail)
    seconds_per_frame = seconds(timeline.media.duration_s) / timeline.media.pts.size
    count = preset.num_frames(
        len(stamped),
        wanted=len(stamped) * seconds_per_frame * seconds(fps),
        budget=budget,
    )
    chosen = [stamped[index] for index in preset.indexes(len(stamped), count)]
    num_steps = budget.geometry.num_steps(count)
    size = preset.frame_size(_source_size(timeline), num_steps=num_steps, budget=budget)
    return Selection(samples=timeline.by_position(chosen), size=size)


def _source_size(timeline: Timeline) -> Size:
    return Size(timeline.media.height, timeline.media.width)
