"""What one frame and one window of a plan may cost."""

import math
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.types import Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameBudget:
    """A checkpoint's limits and an operator's in one; None leaves the value to the preset."""

    geometry: Geometry
    min_pixels: int | None  # of one frame
    max_pixels: int | None
    max_frames: int  # of one window
    max_tokens: int  # of one window

    def __post_init__(self) -> None:
        least = 1 if self.min_pixels is None else self.min_pixels
        most = math.inf if self.max_pixels is None else self.max_pixels
        if not 1 <= least <= most:
            limits = "1" if least < 1 else f"1 to {most}, the most of one picture"
            raise ConfigError(f"min_pixels must be {limits}, got {self.min_pixels!r}")
        if most < self.geometry.pixels_per_token:
            raise ConfigError(f"max_pixels is less than one token, got {self.max_pixels!r}")

    @property
    def window_pixels(self) -> int:
        """Over all temporal patches of a window."""
        return self.max_tokens * self.geometry.pixels_per_token

    @property
    def max_steps(self) -> int:
        """Temporal patches that max_frames fill."""
        return self.max_frames // self.geometry.temporal
