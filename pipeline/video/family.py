"""What a plan has to know of a family of models: handed in, so that no rule of one is here."""

from dataclasses import dataclass
from typing import Protocol

from pipeline.types import Geometry, Size
from pipeline.video.options import PlanOptions
from pipeline.video.timeline import Samples, Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Frames and their size; max_steps bounds a window, None is one window for all."""

    samples: Samples
    size: Size
    max_steps: int | None = None
    overlap_steps: int = 0


class Family(Protocol):
    """How a checkpoint's family wants to be shown videos."""

    @property
    def geometry(self) -> Geometry:
        """The checkpoint's own."""

    def check(self, options: PlanOptions) -> None:
        """Raise ConfigError for options that no video could make right."""

    def select(self, timeline: Timeline, options: PlanOptions) -> Selection:
        """Choose frames and their size; BadInput where the video is at fault."""
