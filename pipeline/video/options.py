"""How videos are to be sampled: what is the same for a whole job, and says nothing of a model."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.video.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What is asked of every plan; ConfigError for what no video and no family could make right.

    preset: "paper" is the family's own rule, others are those of its front ends. long: what becomes
    of more frames than a window takes. "fit" spreads fewer and smaller frames over the whole video;
    "windows" keeps fps and size, opens as many windows as that needs, and lets neighbours share
    overlap_s, at most half a window. min_pixels, max_pixels: of one frame, instead of the preset's;
    under "fit" min_pixels costs frames before it gives way. max_window_tokens: the family's if not
    given. "windows" and max_window_tokens belong to the paper preset; the others keep their own
    budgets.
    """

    preset: str = "paper"
    fps: float = 2.0
    long: Literal["fit", "windows"] = "fit"
    overlap_s: float = 0.0
    start_s: float | None = None
    end_s: float | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_window_tokens: int | None = None

    def __post_init__(self) -> None:
        range_s = (self.start_s, self.end_s)
        is_fit, least = self.long == "fit", 1 if self.min_pixels is None else self.min_pixels
        checks = {
            f"long must be fit or windows, got {self.long!r}": self.long in ("fit", "windows"),
            f"long={self.long} needs the paper preset": is_fit or self.preset == "paper",
            f"fps must be above 0, got {self.fps}": math.isfinite(self.fps) and self.fps > 0,
            f"overlap_s must be 0 or more, got {self.overlap_s}": math.isfinite(self.overlap_s)
            and self.overlap_s >= 0,
            f"overlap_s needs long=windows, got {self.overlap_s}": not is_fit
            or self.overlap_s == 0,
            f"start_s and end_s must be finite, got {range_s}": all(
                math.isfinite(bound) for bound in range_s if bound is not None
            ),
            f"min_pixels must be from 1 to max_pixels, got {self.min_pixels}": 1
            <= least
            <= (math.inf if self.max_pixels is None else self.max_pixels),
            f"max_window_tokens must be 1 or more, got {self.max_window_tokens}": (
                self.max_window_tokens is None or self.max_window_tokens >= 1
            ),
        }
        for message, holds in checks.items():
            if not holds:
                raise ConfigError(message)

    def of(self, source: Source) -> "PlanOptions":
        """The same for this video's own range and rate, where it has them."""
        own = self if source.fps is None else replace(self, fps=source.fps)
        if source.start_s is None and source.end_s is None:
            return own
        return replace(own, start_s=source.start_s, end_s=source.end_s)
