"""The faithful rule: the frames and pixels that fit the tokens Qwen2-VL was trained with.

The paper (arXiv 2409.12191) trains with at most 16,384 tokens per video, 2 frames per second and
at most 768 frames. Frames share the tokens: more frames, fewer pixels each.
"""

from fractions import Fraction

from pipeline.errors import BadInput, FailureCode
from pipeline.types import FACTOR, TEMPORAL, Size
from pipeline.video.budget import MAX_WINDOW_TOKENS, Budget
from pipeline.video.presets import MAX_FRAMES, MIN_FRAMES, floor_even, round_even
from pipeline.video.sizes import PIXELS_PER_TOKEN, PixelRange, bounded_resize, least_size

VIDEO = PixelRange.of_tokens(128, 768)
STILL = PixelRange.of_tokens(100, MAX_WINDOW_TOKENS)


def num_frames(total: int, *, wanted: Fraction, limit: int | None = None) -> int:
    """Return the even count nearest to `wanted` within `limit`, or all `total` if there are fewer.

    Odd only when every frame is taken.
    """
    count = round_even(max(wanted, Fraction(MIN_FRAMES)))
    return min(count if limit is None else min(count, floor_even(limit)), total)


def max_frames(source: Size, *, budget: Budget) -> int:
    """Return how many frames one window takes, none below budget.min_pixels.

    Raises BadInput if not even a pair fits.
    """
    least = least_size(source, budget.min_pixels or 1)
    steps = budget.max_window_tokens * PIXELS_PER_TOKEN // least.num_pixels
    if steps < 1:
        size = f"{least.width}x{least.height}, the least for {budget.min_pixels} pixels,"
        detail = f"{size} exceeds a window of {budget.max_window_tokens} tokens"
        raise BadInput(FailureCode.TOKEN_BUDGET, detail)
    return min(steps * TEMPORAL, budget.max_frames or MAX_FRAMES)


def frame_size(source: Size, *, num_steps: int, budget: Budget) -> Size:
    """Return the size at which num_steps temporal patches of `source` fit one window."""
    share = budget.max_window_tokens * PIXELS_PER_TOKEN / num_steps
    most = min(budget.max_pixels or VIDEO.most, share)
    size = bounded_resize(source, PixelRange(budget.min_pixels or VIDEO.least, most))
    least = least_size(source, budget.min_pixels or 1)
    # Shrinking rounds down, so it can end below what was asked for although the next size fits.
    return least if size.num_pixels < least.num_pixels <= most else size


def still_size(source: Size, *, budget: Budget) -> Size:
    """Return the size of an image: 100 to 16,384 tokens unless asked otherwise.

    The paper gives both that range (table 7) and 64 tokens for 224x224 (section 2.1). So a picture
    already on the 28-pixel grid is taken as it is; enlarging it would add tokens and no detail.
    """
    on_grid = source.height % FACTOR == 0 and source.width % FACTOR == 0
    least = budget.min_pixels or (0 if on_grid else STILL.least)
    most = min(budget.max_pixels or STILL.most, budget.max_window_tokens * PIXELS_PER_TOKEN)
    return bounded_resize(source, PixelRange(least, most))


def steps_per_window(size: Size, *, budget: Budget) -> int:
    """Return how many temporal patches of `size` one window holds."""
    steps = budget.max_window_tokens // (size.num_pixels // PIXELS_PER_TOKEN)
    return min(steps, (budget.max_frames or MAX_FRAMES) // TEMPORAL)
