"""One video as the page shows it: what the page's script reads from the embedded JSON.

Names and model text are untrusted. They reach the page as JSON strings and its script puts them in
as text only; here, characters that would hide or reorder text are written out (\\u202e).
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.model.declared import DEMO_FLAG
from pipeline.tasks.records import Answer, Box, Caption, Provenance, Record

_JOINER = "\u200d"  # emoji families are made with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Still:
    """One frame as a JPEG. time_s: as the record has it, so that boxes find their frame."""

    time_s: float
    jpeg: bytes

    @property
    def data_uri(self) -> str:
        return "data:image/jpeg;base64," + b64encode(self.jpeg).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One result and its span. head: the question or query. note: a warning, mostly empty."""

    start_s: float
    end_s: float
    head: str
    text: str
    note: str = ""
    box_index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnBox:
    """A found box on one frame of the strip; edges as percent of the picture."""

    box_index: int  # which line of boxes it is, from 0
    frame_index: int
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoView:
    """Everything on one video's card."""

    name: str
    folder: str
    code: str  # "" for a good one
    detail: str
    flags: tuple[str, ...]  # a demo model's is told once, at the top
    facts: tuple[str, ...]
    duration_s: float
    aspect: float
    frames: tuple[tuple[float, str], ...]  # time, data URI
    frames_note: str
    drawn: tuple[DrawnBox, ...]
    captions: tuple[Line, ...]
    answers: tuple[Line, ...]
    boxes: tuple[Line, ...]
    extra: tuple[tuple[str, str], ...]
    made_by: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, record: Record, stills: Sequence[Still], *, frames_note: str = "") -> "VideoView":
        """Lay out one record and the frames that could be read for it."""
        folder, slash, name = record.uri.rpartition("/")
        media = record.media
        return cls(
            name=visible(name or record.uri),
            folder=visible(folder + slash),
            code=record.code or "",
            detail=visible(record.detail or ""),
            flags=tuple(visible(flag) for flag in record.flags if flag != DEMO_FLAG),
            facts=tuple(_facts(record)),
            duration_s=media.duration_s if media else 0.0,
            aspect=media.width / media.height if media else 16 / 9,
            frames=tuple((round(still.time_s, 3), still.data_uri) for still in stills),
            frames_note=visible(frames_note),
            drawn=tuple(_drawn(record, stills)),
            captions=tuple(_caption_line(caption) for caption in record.captions),
            answers=tuple(_answer_line(answer) for answer in record.answers),
            boxes=tuple(_box_line(index, box) for index, box in enumerate(record.boxes)),
            extra=tuple((visible(name), visible(text)) for name, text in record.extra.items()),
            made_by=tuple(_made_by(record)),
        )


def visible(text: str) -> str:
    """Write out what cannot be seen: controls, bidirectional overrides, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in ("\n", _JOINER)
        else character.encode("unicode_escape").decode()
        for character in text
    )


def _facts(record: Record) -> list[str]:
    facts = []
    if media := record.media:
        facts.append(f"{media.width}\u00d7{media.height}")
        facts.append(media.codec if media.is_still else f"{media.codec}, {media.duration_s:.1f} s")
    if plan := record.plan:
        facts.append(f"{plan.num_frames} frames, {plan.num_tokens:,} tokens")
    if record.coverage is not None and record.coverage < 1:
        facts.append(f"{record.coverage:.0%} of frames decoded")
    if record.timings.first_word_s is not None:
        facts.append(f"first word after {record.timings.first_word_s:.2f} s")
    facts.append(f"{record.timings.total_s:.2f} s in all")
    return [visible(fact) for fact in facts]


def _drawn(record: Record, stills: Sequence[Still]) -> list[DrawnBox]:
    if record.media is None:
        return []
    frame_at = {still.time_s: index for index, still in enumerate(stills)}
    across, down = 100 / record.media.width, 100 / record.media.height
    return [
        DrawnBox(
            box_index=index,
            frame_index=frame_at[box.time_s],
            left=round(x0 * across, 2),
            top=round(y0 * down, 2),
            width=round((x1 - x0) * across, 2),
            height=round((y1 - y0) * down, 2),
        )
        for index, box in enumerate(record.boxes)
        if box.time_s in frame_at
        for x0, y0, x1, y1 in _corners(box)
    ]


def _corners(box: Box) -> list[tuple[float, float, float, float]]:
    """The box's corners, or nothing where it has none."""
    if box.x0 is None or box.y0 is None or box.x1 is None or box.y1 is None:
        return []
    return [(box.x0, box.y0, box.x1, box.y1)]


def _caption_line(caption: Caption) -> Line:
    return Line(
        start_s=caption.start_s,
        end_s=caption.end_s,
        head="",
        text=visible(caption.text),
        note=_ending(caption),
    )


def _answer_line(answer: Answer) -> Line:
    return Line(
        start_s=answer.start_s,
        end_s=answer.end_s,
        head=visible(answer.question),
        text=visible(answer.answer),
        note=_ending(answer),
    )


def _box_line(index: int, box: Box) -> Line:
    text = "not there" if box.outcome == "absent" else visible(box.raw)
    for x0, y0, x1, y1 in _corners(box):
        text = f"({x0:.0f}, {y0:.0f}) to ({x1:.0f}, {y1:.0f})"
    notes = [*box.adjusted, *([box.code] if box.code else [])]
    return Line(
        start_s=box.time_s,
        end_s=box.time_s,
        head=visible(box.query),
        text=text,
        note=", ".join(notes),
        box_index=index if _corners(box) else None,
    )


def _ending(result: Caption | Answer) -> str:
    if result.code:
        return result.code
    return "cut off" if result.finish_reason == "length" else ""


def _computed(made_by: Provenance) -> str:
    words = [made_by.dtype, made_by.quantization, made_by.device]
    return " ".join(filter(None, (*words, made_by.engine and f"by {made_by.engine}")))


def _made_by(record: Record) -> list[tuple[str, str]]:
    made_by, timings = record.provenance, record.timings
    plan = record.plan
    stages = {
        "plan": timings.plan_s,
        "read": timings.read_s,
        "encode": timings.encode_s,
        "prefill": timings.prefill_s,
        "write": timings.generate_s,
    }
    pairs = [
        ("address", record.uri),
        ("identity", record.etag or "unknown"),
        ("model", f"{made_by.model}, {made_by.model_digest}"),
        ("tasks", made_by.tasks_digest),
        ("vidray", made_by.version),
        ("computed", _computed(made_by)),
        ("decoder held by", ", ".join(made_by.sandbox)),
        ("plan", f"{plan.preset} at {plan.fps:.3g} fps, {plan.hash}" if plan else "none"),
        ("seconds", ", ".join(f"{name} {value:.2f}" for name, value in stages.items())),
    ]
    return [(name, visible(value)) for name, value in pairs if value]
