"""Picture sizes the model takes: both sides a multiple of 28, the area within a pixel range."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import BadInput, FailureCode
from pipeline.types import FACTOR, Size

PIXELS_PER_TOKEN = FACTOR**2
MAX_ASPECT_RATIO = 200


@dataclass(frozen=True, slots=True)
class PixelRange:
    """Wanted area of one frame, in pixels. least may be above most: then most counts."""

    least: float
    most: float

    @classmethod
    def of_tokens(cls, least: float, most: float) -> "PixelRange":
        """Make a range from merged tokens of one temporal patch."""
        return cls(least * PIXELS_PER_TOKEN, most * PIXELS_PER_TOKEN)


def smart_resize(source: Size, area: PixelRange, *, least_side: int = 0) -> Size:
    """Return the multiple-of-28 size next to `source`, scaled into `area` if it lies outside.

    least_side is 28 where a front end clamps the rounded sides (qwen-vl-utils), 0 where a side may
    round to nothing and so counts as too small (transformers). The result can leave the range:
    no side shrinks below 28, and enlarging rounds up. Raises BadInput above 200:1.
    """
    height, width = source.height, source.width
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        detail = f"{width}x{height} is longer than {MAX_ASPECT_RATIO}:1"
        raise BadInput(FailureCode.ASPECT_RATIO, detail)
    # Python rounds halves to even, and so do the front ends: 42 / 28 becomes 2, 70 / 28 as well.
    rounded = [max(least_side, round(side / FACTOR) * FACTOR) for side in (height, width)]
    if math.prod(rounded) > area.most:
        return _scaled(source, area.most, math.floor)
    if math.prod(rounded) < min(area.least, area.most):
        return least_size(source, min(area.least, area.most))
    return Size(*rounded)


def bounded_resize(source: Size, area: PixelRange) -> Size:
    """Return `smart_resize`, but never more than area.most pixels (at least 28 * 28).

    Two kinds of picture need it: a small one whose enlargement rounds up past the limit, and a long
    one whose short side cannot shrink below 28. The second gives up length.
    """
    size = smart_resize(source, area, least_side=FACTOR)
    if size.num_pixels > area.most:
        size = _scaled(source, area.most, math.floor)
    if size.num_pixels > area.most:
        longest = int(area.most // PIXELS_PER_TOKEN) * FACTOR
        size = Size(min(size.height, longest), min(size.width, longest))
    return size


def least_size(source: Size, num_pixels: float) -> Size:
    """Return the smallest size shaped like `source` of at least num_pixels."""
    return _scaled(source, num_pixels, math.ceil)


def _scaled(source: Size, num_pixels: float, to_int: Callable[[float], int]) -> Size:
    """Scale to about num_pixels, sides brought to multiples of 28 by `to_int`, none below 28."""
    scale = math.sqrt(source.num_pixels / num_pixels)
    height, width = (
        max(FACTOR, to_int(side / scale / FACTOR) * FACTOR)
        for side in (source.height, source.width)
    )
    return Size(height, width)
