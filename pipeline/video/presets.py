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
import torch

from pipeline.types import FACTOR, TEMPORAL, Size
from pipeline.video.budget import Budget
from pipeline.video.sizes import PIXELS_PER_TOKEN, PixelRange, smart_resize

MIN_FRAMES = 4
MAX_FRAMES = 768


def floor_even(count: Fraction | int) -> int:
    return math.floor(Fraction(count, TEMPORAL)) * TEMPORAL


def round_even(count: Fraction | int) -> int:
    return round(Fraction(count, TEMPORAL)) * TEMPORAL


def linspace_indexes(total: int, count: int) -> list[int]:
    """Spread from the first frame to the last, rounded: qwen-vl-utils, in its float32."""
    return [int(index) for index in torch.linspace(0, total - 1, count).round()]


def stride_indexes(total: int, count: int) -> list[int]:
    """Take the first frame of each of `count` equal spans: transformers 5, in its float32."""
    return [int(index) for index in torch.arange(0, total, total / count).int()[:count]]


def truncated_indexes(total: int, count: int) -> list[int]:
    """Spread from the first frame to the last, cut to whole numbers: vLLM's loader."""
    return [int(index) for index in np.linspace(0, total - 1, count, dtype=int)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One front end's numbers; the pixel ranges are per frame."""

    video: PixelRange
    still: PixelRange
    indexes: Callable[[int, int], list[int]]  # (total, count) -> count indexes below total
    to_even: Callable[[Fraction | int], int] = floor_even
    total_tokens: int | None = None  # shared by the frames of a video, unless the floor is higher
    fixed_frames: int | None = None  # whatever the duration
    least_side: int = 0  # see smart_resize

    def num_frames(self, total: int, *, wanted: Fraction, max_frames: int | None) -> int:
        """Return how many of `total` frames are taken when fps * duration is `wanted`."""
        if self.fixed_frames is not None:
            return min(max_frames or self.fixed_frames, total)
        limit = floor_even(min(max_frames or MAX_FRAMES, total))
        return max(1, self.to_even(min(max(wanted, Fraction(MIN_FRAMES)), Fraction(limit))))

    def frame_size(self, source: Size, *, num_frames: int, budget: Budget) -> Size:
        """Return the size of a video's frames; as in the original, the floor can break a budget."""
        least = budget.min_pixels or self.video.least
        most: float = budget.max_pixels or self.video.most
        if self.total_tokens is not None:
            share = self.total_tokens * PIXELS_PER_TOKEN * TEMPORAL / num_frames
            most = min(most, max(min(self.video.most, share), int(least * 1.05)))
        return smart_resize(source, PixelRange(least, most), least_side=self.least_side)

    def still_size(self, source: Size, *, budget: Budget) -> Size:
        """Return the size of an image."""
        least = budget.min_pixels or self.still.least
        area = PixelRange(least, budget.max_pixels or self.still.most)
        return smart_resize(source, area, least_side=self.least_side)


PRESETS = {
    "qwen-vl-utils-0.0.8": Preset(
        video=PixelRange.of_tokens(128, 768),
        still=PixelRange.of_tokens(4, 16_384),
        indexes=linspace_indexes,
        to_even=round_even,
        total_tokens=24_576,
        least_side=FACTOR,
    ),
    "qwen-vl-utils-0.0.14": Preset(
        video=PixelRange.of_tokens(128, 768),
        still=PixelRange.of_tokens(4, 16_384),
        indexes=linspace_indexes,
        total_tokens=115_200,  # nine tenths of a 128,000 token context
        least_side=FACTOR,
    ),
    # transformers samples nothing unless told to; told 2 fps, it does this.
    "hf5": Preset(
        video=PixelRange.of_tokens(128, 768),
        still=PixelRange.of_tokens(4, 1280),
        indexes=stride_indexes,
    ),
    # vLLM takes its pixels from the checkpoint's preprocessor_config.json; these are the hub's.
    "vllm": Preset(
        video=PixelRange.of_tokens(4, 16_384),
        still=PixelRange.of_tokens(4, 16_384),
        indexes=truncated_indexes,
        fixed_frames=32,
    ),
}
