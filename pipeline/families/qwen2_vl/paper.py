"""The faithful rule: the frames and pixels that fit the tokens Qwen2-VL was trained with.

The paper (arXiv 2409.12191) trains with at most 16,384 tokens per video, 2 frames per second and
at most 768 frames. Frames share the tokens: more frames, fewer pixels each.
"""

from fractions import Fraction

from pipeline.errors import BadInput, FailureCode
from pipeline.families.qwen2_vl.budget import FrameBudget
from pipeline.families.qwen2_vl.presets import MIN_FRAMES, floor_to, round_to
from pipeline.families.qwen2_vl.sizes import PixelRange, TokenRange, bounded_resize, least_size
from pipeline.types import Size

MAX_WINDOW_TOKENS = 16_384
VIDEO = TokenRange(128, 768)
STILL = TokenRange(100, MAX_WINDOW_TOKENS)


def num_frames(total: int, *, wanted: Fraction, temporal: int, limit: int | None = None) -> int:
    """Return the count of whole temporal patches nearest to `wanted`, within `limit`.

    All `total` if there are fewer, which alone may leave the last patch to be filled up.
    """
    count = round_to(temporal, max(wanted, Fraction(MIN_FRAMES)))
    return min(count if limit is None else min(count, floor_to(temporal, limit)), total)


def max_frames(source: Size, *, budget: FrameBudget) -> int:
    """Return how many frames one window takes, none below budget.min_pixels.

    Raises BadInput if not even one temporal patch fits.
    """
    least = least_size(source, budget.min_pixels or 1, factor=budget.geometry.factor)
    steps = budget.window_pixels // least.num_pixels
    if steps < 1:
        size = f"{least.width}x{least.height}, the least for {budget.min_pixels} pixels,"
        detail = f"{size} exceeds a window of {budget.max_tokens} tokens"
        raise BadInput(FailureCode.TOKEN_BUDGET, detail)
    return min(steps * budget.geometry.temporal, budget.max_frames)


def frame_size(source: Size, *, num_steps: int, budget: FrameBudget) -> Size:
    """Return the size at which num_steps temporal patches of `source` fit one window."""
    factor, usual = budget.geometry.factor, VIDEO.pixels(budget.geometry)
    most = min(budget.max_pixels or usual.most, budget.window_pixels / num_steps)
    area = PixelRange(budget.min_pixels or usual.least, most)
    size = bounded_resize(source, area, factor=factor)
    least = least_size(source, budget.min_pixels or 1, factor=factor)
    # Shrinking rounds down, so it can end below what was asked for although the next size fits.
    return least if size.num_pixels < least.num_pixels <= most else size


def still_size(source: Size, *, budget: FrameBudget) -> Size:
    """Return the size of an image: 100 to 16,384 tokens unless asked otherwise.

    The paper gives both that range (table 7) and 64 tokens for 224x224 (section 2.1). So a picture
    already made of whole tokens is taken as it is; enlarging it would add tokens and no detail.
    """
    factor, usual = budget.geometry.factor, STILL.pixels(budget.geometry)
    is_whole = source.height % factor == 0 and source.width % factor == 0
    least = budget.min_pixels or (0 if is_whole else usual.least)
    most = min(budget.max_pixels or usual.most, budget.window_pixels)
    return bounded_resize(source, PixelRange(least, most), factor=factor)


def steps_per_window(size: Size, *, budget: FrameBudget) -> int:
    """Return how many temporal patches of `size` one window holds."""
    steps = budget.max_tokens // (size.num_pixels // budget.geometry.pixels_per_token)
    return min(steps, budget.max_steps)
