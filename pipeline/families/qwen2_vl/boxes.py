"""Boxes <-> text, in Qwen2-VL's own format. The only place that knows the model's [0, 1000) grid.

    <|object_ref_start|>the red car<|object_ref_end|><|box_start|>(176,106),(232,160)<|box_end|>

The parser meets text a model made up, so it is tolerant and bounded: every pattern consumes a
limited number of characters from a fixed opening, and text past MAX_CHARS is not looked at.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import FailureCode
from pipeline.types import Size

STEPS = 1000  # the model writes coordinates as whole steps of a thousandth of each side
MAX_CHARS = 32_768
MAX_BOXES = 256
MAX_LABEL_CHARS = 200
CORNERS = (2, 4)  # points of a box, of a quad

Adjustment = Literal["clamped", "swapped", "from_quad"]

_SPACE = r"\s{0,3}"
_NUMBER = r"-?\d{1,9}(?:\.\d{1,6})?"
_POINT = re.compile(rf"\({_SPACE}({_NUMBER}){_SPACE},{_SPACE}({_NUMBER}){_SPACE}\)")
_PLAIN_POINT = rf"\({_SPACE}{_NUMBER}{_SPACE},{_SPACE}{_NUMBER}{_SPACE}\)"
_RUN = re.compile(rf"{_PLAIN_POINT}(?:{_SPACE},{_SPACE}{_PLAIN_POINT}){{0,7}}")
_MARKER = re.compile(r"<\|(?:object_ref|box|quad)_(?:start|end)\|>")
_LOOKS_LIKE_A_BOX = re.compile(r"[(\[]\s{0,3}-?\d")


@dataclass(frozen=True, slots=True)
class BoxPx:
    """A box in source pixels as displayed: x0 <= x < x1, y0 <= y < y1, origin at the top left."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not (0 <= self.x0 < self.x1 and 0 <= self.y0 < self.y1):
            raise ValueError(f"a box needs 0 <= x0 < x1 and 0 <= y0 < y1, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One box the model wrote, and what had to be put right to read it."""

    box: BoxPx
    label: str | None  # the model's own name for it
    adjusted: tuple[Adjustment, ...]
    raw: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Text that set out to be a box and is none."""

    raw: str
    reason: str
    label: str | None = None
    code: FailureCode = FailureCode.UNPARSEABLE_OUTPUT


def grounding_question(query: str) -> str:
    """What to ask on a picture for the boxes of `query`.

    Qwen2-VL answers a sentence beginning with "Find" in its box format (QwenLM/Qwen3-VL issue 342).
    """
    return f"Find {query.strip().rstrip('.')}."


def format_box(box: BoxPx, *, source: Size, label: str) -> str:
    """The text the model is taught to write for `box`; a thin box keeps one step per side."""
    x0, x1 = _steps(box.x0, box.x1, side=source.width)
    y0, y1 = _steps(box.y0, box.y1, side=source.height)
    reference = f"<|object_ref_start|>{label}<|object_ref_end|>"
    return f"{reference}<|box_start|>({x0},{y0}),({x1},{y1})<|box_end|>"


def parse_boxes(text: str, *, source: Size) -> list[Found | Unreadable]:
    """Read every box in `text`, in the order written; empty when there is none ("not there").

    Never raises. End tokens may be missing, all special tokens may have been stripped, and text
    without any marker still gives its boxes: a run of two points is a box, one of four a quad.
    """
    text = text[:MAX_CHARS]
    results: list[Found | Unreadable] = []
    for label, body in _candidates(text):
        results.append(_read(body, label=label, source=source))
        if len(results) == MAX_BOXES:
            break
    if not results and _LOOKS_LIKE_A_BOX.search(text):
        return [Unreadable(raw=text, reason="numbers in brackets, but no (x,y) point")]
    return results


def _steps(low: float, high: float, *, side: int) -> tuple[int, int]:
    start = min(round(low * STEPS / side), STEPS - 2)
    return start, max(start + 1, min(round(high * STEPS / side), STEPS - 1))


def _candidates(text: str) -> Iterator[tuple[str | None, str]]:
    """(label, body) of each stretch of text that may be a box."""
    label: str | None = None
    for marker, body in _sections(text):
        runs = _RUN.findall(body)
        if marker == "<|object_ref_start|>":
            # runs: the tokens between the label and its box are missing
            name = body.partition(runs[0])[0] if runs else body
            label = name.strip()[:MAX_LABEL_CHARS] or None
        if marker in ("<|box_start|>", "<|quad_start|>") and not _all_whole(runs):
            runs = [body]  # it said it is a box: one box or one failure
        yield from ((label, run) for run in runs)


def _all_whole(runs: list[str]) -> bool:
    return bool(runs) and all(len(_POINT.findall(run)) in CORNERS for run in runs)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """(marker, text up to the next marker); the first marker is empty."""
    marker, start = "", 0
    for match in _MARKER.finditer(text):
        yield marker, text[start : match.start()]
        marker, start = match.group(), match.end()
    yield marker, text[start:]


def _read(body: str, *, label: str | None, source: Size) -> Found | Unreadable:
    points = [(float(x), float(y)) for x, y in _POINT.findall(body)]
    if len(points) not in CORNERS:
        reason = f"a box has 2 points and a quad 4, got {len(points)}"
        return Unreadable(raw=body, label=label, reason=reason)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    adjusted: list[Adjustment] = []
    if len(points) == 4:
        adjusted.append("from_quad")
    elif xs[0] > xs[1] or ys[0] > ys[1]:
        adjusted.append("swapped")
    if not all(0 <= value < STEPS for value in xs + ys):
        adjusted.append("clamped")
    x0, x1 = (_pixel(value, side=source.width) for value in (min(xs), max(xs)))
    y0, y1 = (_pixel(value, side=source.height) for value in (min(ys), max(ys)))
    if x0 >= x1 or y0 >= y1:
        return Unreadable(raw=body, label=label, reason="the box has no area inside the picture")
    return Found(box=BoxPx(x0, y0, x1, y1), label=label, adjusted=tuple(adjusted), raw=body)


def _pixel(value: float, *, side: int) -> float:
    """A step as a pixel edge; STEPS is the far edge, and what lies further out is clamped to it."""
    return min(max(value, 0.0), float(STEPS)) * side / STEPS
