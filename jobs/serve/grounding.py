"""Where something is in a video, as the endpoint finds and says it."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from jobs.serve.left_stream import LeftStream
from jobs.serve.refusals import Refusal, refusal_of
from jobs.serve.shared_stream import SharedStream
from pipeline.config import Sampling
from pipeline.events import Listener
from pipeline.tasks.records import Box


async def ground(
    stream: SharedStream,
    query: str,
    times_s: Sequence[float],
    *,
    sampling: Sampling,
    deadline_s: float,
    listener: Listener,
) -> dict[str, Any]:
    """Where something is, as JSON. Its events say so too, and how it failed where it did.

    errors: those of the session, TimeoutError after deadline_s.
    """
    ground_id = f"ground-{uuid4().hex[:24]}"
    stream.log.append("grounding", {"ground": ground_id, "query": query})
    try:
        async with asyncio.timeout(deadline_s):
            boxes = await stream.session.ground(
                query, times_s=times_s, sampling=sampling, listener=listener
            )
    except asyncio.CancelledError:
        _fail(stream, ground_id, query, Refusal(499, "stopped", "its client hung up"))
        raise
    except Exception as error:
        _fail(stream, ground_id, query, refusal_of(error))
        raise
    body = grounding_body(ground_id, stream, query, boxes)
    told = {name: body[name] for name in ("query", "boxes")}
    await stream.log.told(stream.log.append("grounded", {"ground": ground_id, **told}))
    return body


def end_groundings(stream: SharedStream, left: LeftStream) -> None:
    """Say of those that an earlier desk was at that nothing comes of them: nobody waits for them
    any more.
    """
    queries: dict[str, str] = {}
    for event in left.events:
        if event.name == "grounding":
            queries[event.data["ground"]] = event.data["query"]
        elif event.name in ("grounded", "ground_failed"):
            queries.pop(event.data["ground"], None)
    lost = Refusal(503, "lost", "this service ended meanwhile; look for it again")
    for ground_id, query in queries.items():
        _fail(stream, ground_id, query, lost)


def _fail(stream: SharedStream, ground_id: str, query: str, refusal: Refusal) -> None:
    failed = {"ground": ground_id, "query": query, "error": refusal.body["error"]}
    stream.log.append("ground_failed", failed)


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
