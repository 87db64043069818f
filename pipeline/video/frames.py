"""From decoded pixels to the planned picture: upright, resized, and never missing.

Geometry: a frame is turned first and resized once, straight to the planned size, so non-square
pixels cost no second resize. Boxes refer to the displayed picture: upright, with square pixels.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.errors import BadInput, FailureCode
from pipeline.types import Size

MAX_ASPECT = 16  # of one pixel: a header that claims more is taken for broken


def resize(frames: Tensor, size: Size) -> Tensor:
    """Resize as the reference does: bicubic with antialias on uint8, bit-identical to torchvision.

    frames: (T, H, W, 3) uint8; returns (T, size.height, size.width, 3) uint8, contiguous.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(f"frames must be (T, H, W, 3) uint8, got {frames.shape = } {frames.dtype}")
    if frames.shape[1:3] == (size.height, size.width):
        return frames.clone(memory_format=torch.contiguous_format)
    channels_last = frames.permute(0, 3, 1, 2)  # (T, 3, H, W), no copy
    resized = F.interpolate(
        channels_last,
        (size.height, size.width),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    return resized.permute(0, 2, 3, 1).contiguous()


def upright(frame: Tensor, *, rotation_deg: int, is_mirrored: bool) -> Tensor:
    """Mirror left to right if asked, then turn clockwise. frame: (H, W, 3)."""
    if is_mirrored:
        frame = frame.flip(1)
    return torch.rot90(frame, -rotation_deg // 90, dims=(0, 1)) if rotation_deg else frame


def orientation(matrix: tuple[int, ...]) -> tuple[int, bool]:
    """Clockwise turn in degrees and whether to mirror first, from a container's display matrix.

    The matrix maps (x, y) to (a x + c y, b x + d y), y down; other angles than right ones are
    shown unturned, as are matrices that are none.
    """
    if len(matrix) != 9:
        return 0, False
    a, b, _, c, d, *_ = matrix
    angle = math.degrees(math.atan2(-c, d)) % 360
    nearest = round(angle / 90) * 90
    if abs(angle - nearest) > 1 or a * d - b * c == 0:
        return 0, False
    return nearest % 360, a * d - b * c < 0


def display_size(coded: Size, *, sample_aspect_ratio: float, rotation_deg: int) -> Size:
    """The size of the picture a player shows: pixels made square by width, then turned."""
    width = max(1, round(coded.width * sample_aspect_ratio))
    if rotation_deg % 180:
        return Size(width, coded.height)
    return Size(coded.height, width)


def plausible_aspect(num: int, den: int) -> float:
    """A pixel's width over its height; 1.0 when the header says nothing sensible."""
    if num <= 0 or den <= 0 or not 1 / MAX_ASPECT <= num / den <= MAX_ASPECT:
        return 1.0
    return num / den


def fill_gaps(frames: Iterator[Tensor | None]) -> Iterator[tuple[Tensor, bool]]:
    """Put the nearest good frame in place of each missing one, the previous if there is one.

    Yields (frame, is_damaged), as many as came in. Raises BadInput when not one was good.
    """
    previous: Tensor | None = None
    num_waiting = 0
    for frame in frames:
        if frame is not None:
            yield from ((frame, True) for _ in range(num_waiting))
            yield frame, False
            previous, num_waiting = frame, 0
        elif previous is not None:
            yield previous, True
        else:
            num_waiting += 1
    if num_waiting:
        raise BadInput(FailureCode.NOT_DECODABLE, f"none of {num_waiting} frames can be decoded")
