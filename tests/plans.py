"""Plans as tests want them: Qwen2-VL's, with limits that no job has."""

from dataclasses import replace
from typing import Any

from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.types import MediaInfo, SamplingPlan
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.windows import CHUNK_TOKENS


def make_plan(
    media: MediaInfo,
    *,
    source_id: str = "test",
    chunk_tokens: int = CHUNK_TOKENS,
    max_frames: int = QWEN2_VL.max_window_frames,
    **options: Any,
) -> SamplingPlan:
    """The plan that Qwen2-VL has of a video. max_frames: of one window."""
    planner = Planner(
        family=replace(QWEN2_VL, max_window_frames=max_frames),
        options=PlanOptions(**options),
        chunk_tokens=chunk_tokens,
    )
    return planner.plan(media, source_id=source_id)
