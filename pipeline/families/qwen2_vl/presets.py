"""What the usual front ends of Qwen2-VL do: how many frames, which ones, and how many pixels.

For users who want the answers they had: qwen-vl-utils, transformers 5 and vLLM each sample and
resize in their own way, and none keeps a long video within the tokens the model was trained with.
They sample by frame index. The default, which does keep them and samples by time, is paper.py.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipeline.families.qwen2_vl.budget import FrameBudget
from pipeline.families.qwen2_vl.sizes import PixelRange, TokenRange, smart_resize
from pipeline.types import Size

MIN_FRAMES = 4


def floor_to(step: int, count: Fraction | int) -> int:
    """The largest multiple of `step` up to `count`."""
    return math.floor(Fraction(count, step)) * step


def round_to(step: int, count: Fraction | int) -> int:
    """The multiple of `step` next to `count`."""
    return round(Fraction(count, step)) * step


def linspace_indexes(total: int, count: int) -> list[int]:
    """Spread from the first frame to the last, rounded: qwen-vl-utils, in its float32."""
    import torch  # noqa: PLC0415 - seconds, and most commands plan nothing

    return [int(index) for index in torch.linspace(0, total - 1, count).round()]


def stride_indexes(total: int, count: int) -> list[int]:
    """Take the first frame of each of `count` equal spans: transformers 5, in its float32."""
    import torch  # noqa: PLC0415 - likewise

    return [int(index) for index in torch.arange(0, total, total / count).int()[:count]]


def truncated_indexes(total: int, count: int) -> list[int]:
    """Spread from the first frame to the last, cut to whole numbers: vLLM's loader."""
    return [int(index) for index in np.linspace(0, total - 1, count, dtype=int)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One front end's numbers; the ranges are per frame."""

    video: TokenRange
    still: TokenRange
    indexes: Callable[[int, int], list[int]]  # (total, count) -> count indexes below total
    to_whole: Callable[[int, Fraction | int], int] = floor_to  # temporal patches
    total_tokens: int | None = None  # shared by the frames of a video, unless the floor is higher
    fixed_frames: int | None = None  # whatever the duration
    clamps_sides: bool = False  # see smart_resize

    def num_frames(self, total: int, *, wanted: Fraction, budget: FrameBudget) -> int:
        """Return how many of `total` frames are taken when fps * duration is `wanted`."""
        most = min(budget.max_frames, total)
        if self.fixed_frames is not None:
            return min(self.fixed_frames, most)
        temporal = budget.geometry.temporal
        limit = floor_to(temporal, most)
        return max(
            1, self.to_whole(temporal, min(max(wanted, Fraction(MIN_FRAMES)), Fraction(limit)))
        )

    def frame_size(self, source: Size, *, num_steps: int, budget: FrameBudget) -> Size:
        """Return the size of a video's frames; as in the original, the floor can break a budget."""
        usual = self.video.pixels(budget.geometry)
        least = budget.min_pixels or usual.least
        most: float = budget.max_pixels or usual.most
        if self.total_tokens is not None:
            share = self.total_tokens * budget.geometry.pixels_per_token / num_steps
            most = min(most, max(min(usual.most, share), int(least * 1.05)))
        return self._resized(source, PixelRange(least, most), factor=budget.geometry.factor)

    def still_size(self, source: Size, *, budget: FrameBudget) -> Size:
        """Return the size of an image."""
        usual = self.still.pixels(budget.geometry)
        area = PixelRange(budget.min_pixels or usual.least, budget.max_pixels or usual.most)
        return self._resized(source, area, factor=budget.geometry.factor)

    def _resized(self, source: Size, area: PixelRange, *, factor: int) -> Size:
        least_side = factor if self.clamps_sides else 0
        return smart_resize(source, area, factor=factor, least_side=least_side)


PRESETS = {
    "qwen-vl-utils-0.0.8": Preset(
        video=TokenRange(128, 768),
        still=TokenRange(4, 16_384),
        indexes=linspace_indexes,
        to_whole=round_to,
        total_tokens=24_576,
        clamps_sides=True,
    ),
    "qwen-vl-utils-0.0.14": Preset(
        video=TokenRange(128, 768),
        still=TokenRange(4, 16_384),
        indexes=linspace_indexes,
        total_tokens=115_200,  # nine tenths of a 128,000 token context
        clamps_sides=True,
    ),
    # transformers samples nothing unless told to; told 2 fps, it does this.
    "hf5": Preset(
        video=TokenRange(128, 768),
        still=TokenRange(4, 1280),
        indexes=stride_indexes,
    ),
    # vLLM takes its pixels from the checkpoint's preprocessor_config.json; these are the hub's.
    "vllm": Preset(
        video=TokenRange(4, 16_384),
        still=TokenRange(4, 16_384),
        indexes=truncated_indexes,
        fixed_frames=32,
    ),
}
