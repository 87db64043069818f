"""Picture sizes the model takes: whole tokens on both sides, the area within a pixel range.

`factor` is everywhere the side of one merged token in pixels: 28 as the model was published.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import BadInput, FailureCode
from pipeline.types import Geometry, Size

MAX_ASPECT_RATIO = 200


@dataclass(frozen=True, slots=True)
class PixelRange:
    """Wanted area of one frame, in pixels. least may be above most: then most counts."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class TokenRange:
    """The same in merged tokens of one temporal patch."""

    least: float
    most: float

    def pixels(self, geometry: Geometry) -> PixelRange:
        per_token = geometry.pixels_per_token
        return PixelRange(self.least * per_token, self.most * per_token)


def smart_resize(source: Size, area: PixelRange, *, factor: int, least_side: int = 0) -> Size:
    """Return the size in whole tokens next to `source`, scaled into `area` if it lies outside.

    least_side is `factor` where a front end clamps the rounded sides (qwen-vl-utils), 0 where a
    side may round to nothing and so counts as too small (transformers). The result can leave the
    range: no side shrinks below `factor`, and enlarging rounds up. Raises BadInput above 200:1.
    """
    height, width = source.height, source.width
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        detail = f"{width}x{height} is longer than {MAX_ASPECT_RATIO}:1"
        raise BadInput(FailureCode.ASPECT_RATIO, detail)
    # Python rounds halves to even, and so do the front ends: 42 / 28 becomes 2, 70 / 28 as well.
    rounded = [max(least_side, round(side / factor) * factor) for side in (height, width)]
    if math.prod(rounded) > area.most:
        return _scaled(source, area.most, math.floor, factor=factor)
    if math.prod(rounded) < min(area.least, area.most):
        return least_size(source, min(area.least, area.most), factor=factor)
    return Size(*rounded)


def bounded_resize(source: Size, area: PixelRange, *, factor: int) -> Size:
    """Return `smart_resize`, but never more than area.most pixels (at least one token).

    Two kinds of picture need it: a small one whose enlargement rounds up past the limit, and a long
    one whose short side cannot shrink below `factor`. The second gives up length.
    """
    size = smart_resize(source, area, factor=factor, least_side=factor)
    if size.num_pixels > area.most:
        size = _scaled(source, area.most, math.floor, factor=factor)
    if size.num_pixels > area.most:
        longest = int(area.most // factor**2) * factor
        size = Size(min(size.height, longest), min(size.width, longest))
    return size


def least_size(source: Size, num_pixels: float, *, factor: int) -> Size:
    """Return the smallest size shaped like `source` of at least num_pixels."""
    return _scaled(source, num_pixels, math.ceil, factor=factor)


def _scaled(
    source: Size, num_pixels: float, to_int: Callable[[float], int], *, factor: int
) -> Size:
    """Scale to about num_pixels, sides brought to whole tokens by `to_int`, one at least."""
    scale = math.sqrt(source.num_pixels / num_pixels)
    height, width = (
        max(factor, to_int(side / scale / factor) * factor)
        for side in (source.height, source.width)
    )
    return Size(height, width)
