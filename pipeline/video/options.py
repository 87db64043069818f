"""How videos are to be sampled: the arguments of make_plan that are the same for a whole job."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np

from pipeline.types import MediaInfo, SamplingPlan
from pipeline.video.budget import MAX_WINDOW_TOKENS, Budget
from pipeline.video.paper import VIDEO
from pipeline.video.plan import check_sampling, make_plan
from pipeline.video.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """As make_plan explains them; ConfigError for what no video could make right."""

    preset: str = "paper"
    fps: float = 2.0
    long: Literal["fit", "windows"] = "fit"
    overlap_s: float = 0.0
    start_s: float | None = None
    end_s: float | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_window_tokens: int = MAX_WINDOW_TOKENS

    def __post_init__(self) -> None:
        check_sampling(
            preset=self.preset,
            fps=self.fps,
            long=self.long,
            overlap_s=self.overlap_s,
            range_s=(self.start_s, self.end_s),
        )
        Budget(
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            max_window_tokens=self.max_window_tokens,
        )

    def within(self, *, min_pixels: int | None, max_pixels: int | None) -> "PlanOptions":
        """The same for a checkpoint with these limits of one picture.

        Qwen2-VL's own limits allow every size a preset asks for. A checkpoint that was trained on
        smaller pictures only has to be shown such.
        """
        if max_pixels is None or max_pixels >= VIDEO.most or self.max_pixels is not None:
            return self
        return replace(self, min_pixels=self.min_pixels or min_pixels, max_pixels=max_pixels)

    def of(self, source: Source) -> "PlanOptions":
        """The same for this video's own range, where it has one."""
        if source.start_s is None and source.end_s is None:
            return self
        return replace(self, start_s=source.start_s, end_s=source.end_s)

    def plan(self, media: MediaInfo, *, source_id: str) -> SamplingPlan:
        """The plan of a video, or of an image."""
        return make_plan(
            media,
            source_id=source_id,
            preset=self.preset,
            fps=self.fps,
            long=self.long,
            overlap_s=self.overlap_s,
            start_s=self.start_s,
            end_s=self.end_s,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            max_window_tokens=self.max_window_tokens,
        )

    def plan_still(self, media: MediaInfo, time_s: float, *, source_id: str) -> SamplingPlan:
        """The plan of the one frame a player shows at time_s, as an image."""
        frame = _frame_at(media, time_s)
        still = replace(
            media,
            pts=media.pts[frame : frame + 1],
            is_key=media.is_key[frame : frame + 1],
            duration_s=0.0,
            is_still=True,
        )
        return replace(self, start_s=None, end_s=None).plan(still, source_id=source_id)


def _frame_at(media: MediaInfo, time_s: float) -> int:
    """Position in the packet index: the last frame not stamped after time_s, else the first."""
    ticks_per_s = Fraction(media.time_base_den, media.time_base_num)
    tick = int(media.pts[0]) + int(Fraction(time_s).limit_denominator(1_000_000) * ticks_per_s)
    return max(0, int(np.searchsorted(media.pts, tick, side="right")) - 1)
