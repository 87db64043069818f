"""Where something is in a video, as the endpoint says it."""

from collections.abc import Sequence
from typing import Any

from jobs.serve.shared_stream import SharedStream
from pipeline.tasks.records import Box


def grounding_body(
    ground_id: str, stream: SharedStream, query: str, boxes: Sequence[Box]
) -> dict[str, Any]:
    """As JSON. Corners are pixels of the picture as displayed, whose size is said, too."""
    plan = stream.session.plan
    return {
        "id": ground_id,
        "object": "vidray.ground",
        "stream": stream.id,
        "query": query,
        "source_width": plan.source_width,
        "source_height": plan.source_height,
        "boxes": [_box_body(box) for box in boxes],
    }


def _box_body(box: Box) -> dict[str, Any]:
    return {
        "time_s": box.time_s,
        "outcome": box.outcome,
        "label": box.label,
        "x0": box.x0,
        "y0": box.y0,
        "x1": box.x1,
        "y1": box.y1,
        "code": box.code,
    }
