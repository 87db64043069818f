"""From tasks to what the model is asked, on which pictures; and back from its answers to rows.

A video of one window is asked everything on that window. Of several windows each is asked alone,
and what they said is then put together by the model from their texts (`combine`). Grounding is
asked on the single frame shown at its time: Qwen2-VL learnt boxes on pictures.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.config import Sampling
from pipeline.engine.constraint import Constraint
from pipeline.engine.question import Completion
from pipeline.errors import BadInput, FailureCode
from pipeline.families.qwen2_vl.boxes import Found, Unreadable, grounding_question, parse_boxes
from pipeline.tasks.records import Answer, Box, Caption
from pipeline.tasks.tasks import Ground, Tasks
from pipeline.types import SamplingPlan, Size, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt. subject: the question or query as the user wrote it, "" for a caption.

    task_index numbers captions and questions, so that windows' answers to the same one meet.
    window_index None: the whole video, or for grounding the frame at start_s.
    """

    kind: Literal["caption", "ask", "ground"]
    subject: str
    prompt: str
    sampling: Sampling
    constraint: Constraint | None = None
    task_index: int = 0
    window_index: int | None = None
    start_s: float
    end_s: float


Asked = tuple[Request, Completion]  # what was asked, and how it ended


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A stretch of video that is shown to the model, and what it is asked about it."""

    plan: SamplingPlan
    window: Window
    requests: tuple[Request, ...]


def make_views(
    plan: SamplingPlan, tasks: Tasks, *, still_at: Callable[[float], SamplingPlan]
) -> list[View]:
    """Everything to look at, in order: the windows of the plan, then a still for each time.

    still_at: the plan of the one frame shown at a time. An image is looked at once for everything.
    """
    if plan.is_still:
        (window,) = plan.windows
        finds = [request for requests in _finds(plan, tasks).values() for request in requests]
        return [View(plan=plan, window=window, requests=(*_asks(plan, window, tasks), *finds))]
    views = []
    for window in plan.windows:
        requests = _asks(plan, window, tasks)
        if requests:
            views.append(View(plan=plan, window=window, requests=requests))
    for time_s, finds in _finds(plan, tasks).items():
        still = still_at(time_s)
        views.append(View(plan=still, window=still.windows[0], requests=tuple(finds)))
    return views


def unshown(plan: SamplingPlan, tasks: Tasks) -> list[Asked]:
    """What was asked of moments after the video's end, each with why it has no answer."""
    end_s = _end_s(plan)
    return [
        (_find(ground, time_s, tasks), Completion(error=_beyond(time_s, end_s)))
        for ground in tasks.grounds
        for time_s in dict.fromkeys(ground.times_s)
        if time_s > end_s and not plan.is_still
    ]


def combine(asked: Sequence[Asked], *, max_parts: int) -> list[Request]:
    """What to ask, as text alone, to bring windows' answers together; empty when all is whole.

    At most max_parts (>= 2) consecutive parts go into one prompt, so a long video takes several
    rounds: call again with what came of the round before.
    """
    requests: list[Request] = []
    for parts in _by_task(asked):
        groups = [parts[i : i + max_parts] for i in range(0, len(parts), max_parts)]
        requests += [_merged(group, is_last=len(groups) == 1) for group in groups]
    return requests


def captions(asked: Iterable[Asked]) -> tuple[Caption, ...]:
    """The rows of what was said of whole videos and their windows."""
    return tuple(
        Caption(
            start_s=request.start_s,
            end_s=request.end_s,
            window_index=request.window_index,
            text=said.text,
            finish_reason=said.finish_reason,
            code=said.code,
        )
        for request, said in asked
        if request.kind == "caption"
    )


def answers(asked: Iterable[Asked]) -> tuple[Answer, ...]:
    """The rows of what was answered, for whole videos and their windows."""
    return tuple(
        Answer(
            question=request.subject,
            start_s=request.start_s,
            end_s=request.end_s,
            window_index=request.window_index,
            answer=said.text,
            finish_reason=said.finish_reason,
            code=said.code,
        )
        for request, said in asked
        if request.kind == "ask"
    )


def boxes(asked: Iterable[Asked], *, source: Size) -> tuple[Box, ...]:
    """The rows of what was found, or not, in pixels of a source of this size."""
    return tuple(
        box
        for request, said in asked
        if request.kind == "ground"
        for box in _boxes(request, said, source)
    )


def _asks(plan: SamplingPlan, window: Window, tasks: Tasks) -> tuple[Request, ...]:
    span = Request(
        kind="caption",
        subject="",
        prompt=tasks.caption_prompt(is_still=plan.is_still) or "",
        sampling=tasks.sampling,
        window_index=window.index if len(plan.windows) > 1 else None,
        start_s=window.start_s,
        end_s=window.end_s,
    )
    asks = [
        replace(
            span,
            kind="ask",
            subject=ask.question,
            prompt=ask.question,
            constraint=ask.constraint,
            task_index=index,
        )
        for index, ask in enumerate(tasks.asks, start=1)
    ]
    return tuple(asks if tasks.caption is None else [span, *asks])


def _finds(plan: SamplingPlan, tasks: Tasks) -> dict[float, list[Request]]:
    """Grounding requests by the time they look at; times beyond the end mean the last frame."""
    middle_s = (plan.windows[0].start_s + plan.windows[-1].end_s) / 2
    finds: dict[float, list[Request]] = {}
    for ground in tasks.grounds:
        asked_s = ground.times_s or (middle_s,)
        shown_s = [0.0] if plan.is_still else [time for time in asked_s if time <= _end_s(plan)]
        for time_s in dict.fromkeys(shown_s):  # once, if a time was given twice
            finds.setdefault(time_s, []).append(_find(ground, time_s, tasks))
    return finds


def _find(ground: Ground, time_s: float, tasks: Tasks) -> Request:
    return Request(
        kind="ground",
        subject=ground.query,
        prompt=grounding_question(ground.query),
        sampling=tasks.sampling,
        start_s=time_s,
        end_s=time_s,
    )


def _end_s(plan: SamplingPlan) -> float:
    return max(plan.duration_s, plan.windows[-1].end_s)  # the video may begin late


def _beyond(time_s: float, end_s: float) -> BadInput:
    detail = f"nothing is shown at {time_s:g} s: the video ends at {end_s:.2f} s"
    return BadInput(FailureCode.BEYOND_END, detail)


def _by_task(asked: Sequence[Asked]) -> list[list[Asked]]:
    """What was said of windows and still has to be brought together, task by task."""
    tasks: dict[int, list[Asked]] = {}
    for request, said in asked:
        if request.window_index is not None and said.error is None:
            tasks.setdefault(request.task_index, []).append((request, said))
    return list(tasks.values())


def _merged(parts: Sequence[Asked], *, is_last: bool) -> Request:
    (first, _), (last, _) = parts[0], parts[-1]
    lines = "\n".join(
        f"[{request.start_s:.1f} s to {request.end_s:.1f} s] {said.text}" for request, said in parts
    )
    if first.kind == "caption":
        wish = "Each line describes a part of one video, in order. Describe the whole video."
    else:
        wish = (
            "Each line answers a question for a part of one video, in order. "
            f"Answer it for the whole video: {first.subject}"
        )
    return replace(
        first,
        prompt=f"{lines}\n{wish}",
        window_index=None if is_last else first.window_index,
        end_s=last.end_s,
    )


def _boxes(request: Request, said: Completion, source: Size) -> list[Box]:
    """The boxes of one query; one row that says so when there is none.

    An answer that was cut off before its first box says nothing about what the model sees.
    """
    is_cut = said.finish_reason == "length"
    code = said.code or (FailureCode.UNPARSEABLE_OUTPUT if is_cut else None)
    none = Box(
        query=request.subject,
        time_s=request.start_s,
        outcome="failed" if code else "absent",
        code=code,
        finish_reason=said.finish_reason,
        raw=said.text,
    )
    found = parse_boxes(said.text, source=source)
    return [_row(item, none) for item in found] or [none]


def _row(item: Found | Unreadable, none: Box) -> Box:
    if isinstance(item, Unreadable):
        return replace(none, outcome="failed", code=item.code, label=item.label, raw=item.raw)
    return replace(
        none,
        outcome="found",
        code=None,
        label=item.label,
        adjusted=item.adjusted,
        raw=item.raw,
        x0=item.box.x0,
        y0=item.box.y0,
        x1=item.box.x1,
        y1=item.box.y1,
    )
