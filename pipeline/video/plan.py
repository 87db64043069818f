"""SamplingPlan: which frames, at what size, in which windows and chunks. No pixel is touched.

Pure arithmetic on the header and the packet index, so the plan is the same wherever it is made, and
frozen before decoding starts: the decoder's positions and its token count rest on it.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from pipeline.errors import ConfigError
from pipeline.types import MediaInfo, SamplingPlan
from pipeline.video.family import Family
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from pipeline.video.timeline import Samples, Timeline
from pipeline.video.windows import CHUNK_TOKENS, cut_windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Plans videos as a job wants them and a checkpoint can take them.

    chunk_tokens: near which frames are cut into chunks. max_frames: of one plan, at the price of
    fps. ConfigError for options that the family does not have.
    """

    family: Family
    options: PlanOptions = PlanOptions()
    chunk_tokens: int = CHUNK_TOKENS
    max_frames: int | None = None

    def __post_init__(self) -> None:
        self.family.check(self.options)
        if self.chunk_tokens < 1:
            raise ConfigError(f"chunk_tokens must be 1 or more, got {self.chunk_tokens}")

    def of(self, source: Source) -> "Planner":
        """The same for what this video alone is to be sampled by."""
        return replace(self, options=self.options.of(source), max_frames=source.max_frames)

    def plan(self, media: MediaInfo, *, source_id: str) -> SamplingPlan:
        """The frozen plan of a video's range [start_s, end_s), or of an image.

        Raises BadInput (ASPECT_RATIO, EMPTY_RANGE, TOKEN_BUDGET, TOO_MANY_FRAMES, TRUNCATED) where
        the video is at fault.
        """
        geometry, (start_s, end_s) = self.family.geometry, self._range_s(media)
        timeline = Timeline.of(media, start_s=start_s, end_s=end_s)
        selection = self.family.select(timeline, self._slowed(timeline))
        samples = selection.samples.padded(geometry.temporal)
        return SamplingPlan(
            source_id=source_id,
            preset=self.options.preset,
            fps=_sampled_fps(samples, timeline),
            source_width=media.width,
            source_height=media.height,
            duration_s=media.duration_s,
            is_still=media.is_still,
            time_base_num=media.time_base_num,
            time_base_den=media.time_base_den,
            windows=cut_windows(
                samples,
                selection.size,
                geometry=geometry,
                start_s=float(timeline.start),
                end_s=float(timeline.end),
                max_steps=selection.max_steps,
                overlap_steps=selection.overlap_steps,
                chunk_tokens=self.chunk_tokens,
            ),
            flags=media.flags,
        )

    def plan_still(self, media: MediaInfo, time_s: float, *, source_id: str) -> SamplingPlan:
        """The plan of the one frame a player shows at time_s, as an image."""
        frame = _frame_at(media, time_s)
        still = replace(
            media,
            pts=media.pts[frame : frame + 1],
            is_key=media.is_key[frame : frame + 1],
            duration_s=0.0,
            offset=0,
            is_still=True,
        )
        return self.plan(still, source_id=source_id)

    def _slowed(self, timeline: Timeline) -> PlanOptions:
        """As few frames per second as leave no more than max_frames."""
        duration_s, temporal = float(timeline.duration), self.family.geometry.temporal
        if self.max_frames is None or not duration_s:
            return self.options
        most = max(self.max_frames // temporal, 1) * temporal
        return replace(self.options, fps=min(self.options.fps, most / duration_s))

    def _range_s(self, media: MediaInfo) -> tuple[float | None, float | None]:
        """Nothing is cut off an image."""
        return (None, None) if media.is_still else (self.options.start_s, self.options.end_s)


def _sampled_fps(samples: Samples, timeline: Timeline) -> float:
    if timeline.media.is_still or not timeline.duration:
        return 0.0
    return float(len(samples.pts) / timeline.duration)


def _frame_at(media: MediaInfo, time_s: float) -> int:
    """Position in the packet index: the last frame not stamped after time_s, else the first."""
    ticks_per_s = Fraction(media.time_base_den, media.time_base_num)
    start = int(media.pts[0]) - media.offset
    tick = start + int(Fraction(time_s).limit_denominator(1_000_000) * ticks_per_s)
    return max(0, int(np.searchsorted(media.pts, tick, side="right")) - 1)
