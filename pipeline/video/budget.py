"""What a caller may ask of a plan, checked once."""

import math
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.types import TEMPORAL
from pipeline.video.sizes import PIXELS_PER_TOKEN

MAX_WINDOW_TOKENS = 16_384  # of one video in training, arXiv 2409.12191
MAX_PLANNED_FRAMES = 1_000_000  # six days at 2 fps; a plan lists its frames
CHUNK_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of one frame, one window and one chunk; None leaves the value to the preset."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    max_frames: int | None = None
    max_window_tokens: int = MAX_WINDOW_TOKENS
    chunk_tokens: int = CHUNK_TOKENS

    def __post_init__(self) -> None:
        least = 1 if self.min_pixels is None else self.min_pixels
        most = math.inf if self.max_pixels is None else self.max_pixels
        checks = {
            "min_pixels": 1 <= least <= most,
            "max_pixels": most >= PIXELS_PER_TOKEN,
            "max_frames": self.max_frames is None
            or TEMPORAL <= self.max_frames <= MAX_PLANNED_FRAMES,
            "max_window_tokens": 1 <= self.max_window_tokens <= MAX_WINDOW_TOKENS,
            "chunk_tokens": self.chunk_tokens >= 1,
        }
        for name, holds in checks.items():
            if not holds:
                raise ConfigError(f"{name} is out of range, got {getattr(self, name)!r}")
