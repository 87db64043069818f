"""Boxes <-> text, in Qwen2-VL's own format. The only place that knows the model's [0, 1000) grid.

    <|object_ref_start|>the red car<|object_ref_end|><|box_start|>(176,106),(232,160)<|box_end|>

A box is two points, a quad four; several of one label may stand under one marker. The first
Qwen-VL's markers (`<ref>`, `<box>`, `<quad>`) and full-width punctuation mean the same.

The parser meets text a model made up, so it is tolerant and bounded: every pattern consumes a
limited number of characters from a fixed opening, and text past MAX_CHARS is not looked at.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import FailureCode
from pipeline.types import Size

STEPS = 1000  # the model writes coordinates as whole steps of a thousandth of each side
MAX_CHARS = 32_768
MAX_BOXES = 256
MAX_LABEL_CHARS = 200
BOX_POINTS, QUAD_POINTS = 2, 4

Adjustment = Literal["clamped", "swapped", "from_quad"]

# Character for character, so that places in a text stay the same.
_FULL_WIDTH = str.maketrans("（），、；．－０１２３４５６７８９", "(),,;.-0123456789")
_SPACE = r"\s{0,3}"
_NUMBER = r"[-+]?(?:\d{1,9}(?:\.\d{0,17})?|\.\d{1,17})"
_POINT = re.compile(rf"\({_SPACE}({_NUMBER}){_SPACE},{_SPACE}({_NUMBER}){_SPACE}\)")
_PLAIN_POINT = rf"\({_SPACE}{_NUMBER}{_SPACE},{_SPACE}{_NUMBER}{_SPACE}\)"
_NEXT_POINT = rf"{_SPACE}[,;]?{_SPACE}{_PLAIN_POINT}"
_RUN = re.compile(rf"{_PLAIN_POINT}(?:{_NEXT_POINT}){{0,{QUAD_POINTS * MAX_BOXES - 1}}}")
_MARKER = re.compile(
    r"<\|(?P<new>(?:object_ref|box|quad)_(?:start|end))\|>|<(?P<end>/?)(?P<old>ref|box|quad)>"
)
_FOUR = rf"{_NUMBER}(?:{_SPACE},{_SPACE}{_NUMBER}){{3}}"
_PAIR = rf"[(\[]{_SPACE}{_NUMBER}(?:{_SPACE}[,;]{_SPACE}|\s){_NUMBER}{_SPACE}[)\]]"
# What sets out to say where something is, in a way that is not Qwen2-VL's.
_LOOKS_LIKE_A_BOX = re.compile(
    "|".join(
        (
            rf"[(\[]{_SPACE}{_FOUR}{_SPACE}[)\]]",  # four numbers in brackets
            rf"\A\W{{0,9}}{_FOUR}\W{{0,9}}\Z|box\b[^.\d]{{0,20}}{_FOUR}",  # or bare
            rf"{_PAIR}{_SPACE}[,;]{_SPACE}{_PAIR}",  # pairs otherwise put
            rf"(?:top|upper)[- ]?(?:left|right)\W{{0,3}}{_PAIR}",  # corners by name
            r"[\"']\w{0,20}(?:box|point|coord)\w{0,20}[\"']\s{0,3}:",  # a JSON key
            rf"\bx(?:_?(?:min|[01]))?[\"']?\s?[:=]\s?{_NUMBER}\W{{1,9}}y",  # sides by name
            r"<(?:points?|bbox|loc)[\s_>\d]",  # a tag
        )
    ),
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]{2}")


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

    Never raises. End tokens may be missing, all special tokens may have been stripped. Without a
    marker, points next to each other are boxes, and a lone one in a sentence is a part of it.
    """
    text = text[:MAX_CHARS]
    results: list[Found | Unreadable] = []
    for place in _places(text):
        results += _read(place, source=source)
        if len(results) >= MAX_BOXES:
            return results[:MAX_BOXES]
    if not results and _LOOKS_LIKE_A_BOX.search(text.translate(_FULL_WIDTH)):
        return [Unreadable(raw=text, reason="says where something is, but not as (x,y),(x,y)")]
    return results


def _steps(low: float, high: float, *, side: int) -> tuple[int, int]:
    start = min(round(low * STEPS / side), STEPS - 2)
    return start, max(start + 1, min(round(high * STEPS / side), STEPS - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """The text from one marker to the next; the first has no marker."""

    marker: str  # as in <|box_start|>
    body: str
    next_marker: str

    @property
    def is_label(self) -> bool:
        """Whether all of it is a label: its end is there, or the beginning of its box."""
        ends = ("object_ref_end", "box_start", "quad_start")
        return self.marker == "object_ref_start" and self.next_marker in ends


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A stretch of text that is one or more boxes, or failed to be."""

    label: str | None
    body: str
    points_each: int = BOX_POINTS


def _places(text: str) -> Iterator[_Place]:
    label: str | None = None
    has_words = _WORD.search(_MARKER.sub("", text)) is not None
    for section in _sections(text):
        body, prose = section.body, section.body
        if section.marker == "object_ref_start":
            run = None if section.is_label else _RUN.search(body.translate(_FULL_WIDTH))
            # A run: the tokens between the label and its box are missing.
            name, prose = (body[: run.start()], body[run.start() :]) if run else (body, "")
            if _RUN.fullmatch(body.translate(_FULL_WIDTH).strip()):  # a box in a label's place
                name, prose = "", body
            label = name.strip()[:MAX_LABEL_CHARS] or None
        elif section.marker in ("box_start", "quad_start") or _begins_with_a_point(section):
            if not body.strip() and section.next_marker.endswith(("box_start", "quad_start")):
                continue  # one marker in another
            kind = section.marker.removesuffix("_start")
            if section.next_marker != f"{kind}_end":  # the rest of it may be anything
                body, prose = _leading_run(body)
            else:
                prose = ""
            yield _Place(
                label=label,
                body=body,
                points_each=QUAD_POINTS if kind == "quad" else BOX_POINTS,
            )
        for run in _RUN.finditer(prose.translate(_FULL_WIDTH)):
            is_alone = len(_POINT.findall(run.group())) == 1
            if not (is_alone and has_words):
                yield _Place(label=label, body=prose[run.start() : run.end()])


def _sections(text: str) -> Iterator[_Section]:
    marker, start = "", 0
    for match in _MARKER.finditer(text):
        following = _name(match)
        yield _Section(marker=marker, body=text[start : match.start()], next_marker=following)
        marker, start = following, match.end()
    yield _Section(marker=marker, body=text[start:], next_marker="")


def _name(match: re.Match[str]) -> str:
    """As in <|box_start|>, also of the first Qwen-VL's <box>."""
    if match["new"]:
        return match["new"]
    kind = "object_ref" if match["old"] == "ref" else match["old"]
    return f"{kind}_{'end' if match['end'] else 'start'}"


def _begins_with_a_point(section: _Section) -> bool:
    """Whether it is a box whose beginning is missing: a point right after a label."""
    start = section.body.translate(_FULL_WIDTH).lstrip(" :\n")
    return section.marker == "object_ref_end" and _POINT.match(start) is not None


def _leading_run(body: str) -> tuple[str, str]:
    """(points that it begins with, or all of it without any; the rest)."""
    plain = body.translate(_FULL_WIDTH)
    run = _RUN.match(plain, len(plain) - len(plain.lstrip(" :\n")))
    return (body[: run.end()], body[run.end() :]) if run else (body, "")


def _read(place: _Place, *, source: Size) -> list[Found | Unreadable]:
    """Every box of a place; one failure where its points are not whole boxes."""
    points = list(_POINT.finditer(place.body.translate(_FULL_WIDTH)))
    each = place.points_each
    if not points or len(points) % each:
        got = len(points) or "none as (x,y)"
        reason = f"a box has 2 points and a quad 4, got {got}"
        return [Unreadable(raw=place.body, label=place.label, reason=reason)]
    groups = [points[index : index + each] for index in range(0, len(points), each)]
    if len(groups) == 1:
        return [_read_one(groups[0], raw=place.body, label=place.label, source=source)]
    return [
        _read_one(
            group,
            raw=place.body[group[0].start() : group[-1].end()],
            label=place.label,
            source=source,
        )
        for group in groups
    ]


def _read_one(
    points: Sequence[re.Match[str]], *, raw: str, label: str | None, source: Size
) -> Found | Unreadable:
    values = [(float(x), float(y)) for x, y in (point.groups() for point in points)]
    xs, ys = [x for x, _ in values], [y for _, y in values]
    if all(value <= 1 for value in xs + ys) and any("." in point.group() for point in points):
        reason = "fractions of a side, not thousandths"
        return Unreadable(raw=raw, label=label, reason=reason)
    adjusted: list[Adjustment] = []
    if len(points) == QUAD_POINTS:
        adjusted.append("from_quad")
    elif xs[0] > xs[1] or ys[0] > ys[1]:
        adjusted.append("swapped")
    if not all(0 <= value < STEPS for value in xs + ys):
        adjusted.append("clamped")
    x0, x1 = (_pixel(value, side=source.width) for value in (min(xs), max(xs)))
    y0, y1 = (_pixel(value, side=source.height) for value in (min(ys), max(ys)))
    if x0 >= x1 or y0 >= y1:
        return Unreadable(raw=raw, label=label, reason="the box has no area inside the picture")
    return Found(box=BoxPx(x0, y0, x1, y1), label=label, adjusted=tuple(adjusted), raw=raw)


def _pixel(value: float, *, side: int) -> float:
    """A step as a pixel edge; STEPS is the far edge, and what lies further out is clamped to it."""
    return min(max(value, 0.0), float(STEPS)) * side / STEPS
