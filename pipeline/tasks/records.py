"""Record: the typed result of one video, and its way to and from Arrow and JSON.

The dataclasses here are the schema: the Arrow columns are derived from their fields, and the words
of each Doc travel in the Arrow field's metadata, so that a table says its units wherever it goes.
Times are seconds from the first frame of the video. All text the model wrote is untrusted data.
"""

import dataclasses
import types
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
from pydantic import TypeAdapter

from pipeline.errors import FailureCode
from pipeline.types import MediaInfo, SamplingPlan, Window

# Rows of every earlier one are read. 2: extra; finish_reason of boxes; flags of demo models; what
# the model computed with, and what held the decoder.
SCHEMA_VERSION = 2
SCHEMA_KEY = "vidray.schema"


@dataclass(frozen=True, slots=True)
class Doc:
    """What a column holds, for its reader."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """The video as found."""

    container: str
    codec: str
    pixel_format: str
    width: Annotated[int, Doc("pixels as displayed, upright; boxes are in these")]
    height: int
    rotation_deg: Annotated[int, Doc("clockwise turn that was applied")]
    num_frames: Annotated[int, Doc("coded frames in the packet index")]
    duration_s: float
    is_still: bool
    offset_s: Annotated[float, Doc("when its first frame is shown, from the file's start")] = 0.0

    @classmethod
    def of(cls, media: MediaInfo) -> "MediaFacts":
        return cls(
            container=media.container,
            codec=media.codec,
            pixel_format=media.pixel_format,
            width=media.width,
            height=media.height,
            rotation_deg=media.rotation_deg,
            num_frames=len(media.pts),
            duration_s=media.duration_s,
            is_still=media.is_still,
            offset_s=media.offset_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFacts:
    """One window as the model saw it."""

    start_s: float
    end_s: float
    width: Annotated[int, Doc("pixels of each frame as given to the model")]
    height: int
    times_s: Annotated[tuple[float, ...], Doc("when each frame is shown")]

    @classmethod
    def of(cls, window: Window) -> "WindowFacts":
        size = window.grid.size
        return cls(
            start_s=window.start_s,
            end_s=window.end_s,
            width=size.width,
            height=size.height,
            times_s=window.times_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """How it was sampled."""

    hash: Annotated[str, Doc("equal plans, equal hash")]
    preset: str
    fps: Annotated[float, Doc("frames taken per second; 0 for an image")]
    num_frames: int
    num_tokens: Annotated[int, Doc("video tokens over all windows")]
    windows: tuple[WindowFacts, ...]

    @classmethod
    def of(cls, plan: SamplingPlan) -> "PlanFacts":
        return cls(
            hash=plan.hash,
            preset=plan.preset,
            fps=plan.fps,
            num_frames=plan.num_frames,
            num_tokens=plan.num_tokens,
            windows=tuple(map(WindowFacts.of, plan.windows)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What made the row: the same model, tasks, version and numbers, and the same bytes, give the
    same words.
    """

    model: str
    model_digest: str
    tasks_digest: Annotated[str, Doc("of prompts, questions, constraints and sampling")]
    version: Annotated[str, Doc("of vidray")]
    device: Annotated[str | None, Doc("kind that the model computed on: cpu, cuda")] = None
    dtype: Annotated[str | None, Doc("in what numbers: float32, bfloat16")] = None
    quantization: Annotated[
        str | None, Doc("of the language model: int8, or its files' own method; null: none")
    ] = None
    engine: Annotated[
        str | None, Doc("of the language model: vidray, or another one's name and version")
    ] = None
    sandbox: Annotated[
        tuple[str, ...], Doc("what held the file's decoder; empty: it came to none")
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds of work per stage; they overlap, so their sum may exceed total_s."""

    plan_s: float
    read_s: Annotated[float, Doc("waiting for frames")]
    encode_s: float
    prefill_s: float
    generate_s: float
    first_word_s: Annotated[float | None, Doc("from the start to the first generated text")]
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A description of one window, or of the whole video."""

    start_s: float
    end_s: float
    window_index: Annotated[int | None, Doc("null: the whole video")]
    text: str
    finish_reason: Annotated[str | None, Doc("stop, constraint, or length: cut off; null: failed")]
    code: Annotated[FailureCode | None, Doc("why it failed")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer from one window, or from the whole video."""

    question: str
    start_s: float
    end_s: float
    window_index: Annotated[int | None, Doc("null: the whole video")]
    answer: str
    finish_reason: Annotated[str | None, Doc("stop, constraint, or length: cut off; null: failed")]
    code: Annotated[FailureCode | None, Doc("why it failed")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box; a query that gave none has one row that says why."""

    query: str
    time_s: Annotated[float, Doc("of the frame looked at")]
    outcome: Annotated[Literal["found", "absent", "failed"], Doc("absent: the model sees none")]
    code: Annotated[FailureCode | None, Doc("why it failed")] = None
    label: Annotated[str | None, Doc("the model's own name for it")] = None
    x0: Annotated[float | None, Doc("source pixels as displayed; x0 <= x < x1")] = None
    y0: float | None = None
    x1: float | None = None
    y1: float | None = None
    adjusted: Annotated[tuple[str, ...], Doc("clamped, swapped, from_quad")] = ()
    finish_reason: Annotated[
        str | None, Doc("of the answer it is from: stop, or length: cut off; null: failed")
    ] = None
    raw: Annotated[str, Doc("what the model wrote for this box")]

    def __post_init__(self) -> None:
        corners = (self.x0, self.y0, self.x1, self.y1)
        if any((corner is None) == (self.outcome == "found") for corner in corners):
            raise ValueError(f"a found box has four corners and no other has any, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything known of one video. Failed: code and detail say why; captions etc. are empty."""

    video_id: Annotated[str, Doc("of place, range and own questions: equal in every job")]
    uri: Annotated[str, Doc("where the video lies: an absolute path or s3://bucket/key")]
    etag: Annotated[str | None, Doc("identity of the bytes, as the store or their hash gives it")]
    size_bytes: Annotated[int | None, Doc("of the file, in bytes")]
    status: Annotated[Literal["ok", "failed"], Doc("failed: the video as a whole has no result")]
    code: Annotated[FailureCode | None, Doc("why it failed")] = None
    detail: Annotated[str | None, Doc("the same for people")] = None
    flags: Annotated[tuple[str, ...], Doc("oddities that did not stop it")] = ()
    coverage: Annotated[
        float | None, Doc("share of planned frames that were really decoded; null: none planned")
    ] = None
    captions: Annotated[tuple[Caption, ...], Doc("descriptions; times in seconds")] = ()
    answers: Annotated[tuple[Answer, ...], Doc("to questions; times in seconds")] = ()
    boxes: Annotated[
        tuple[Box, ...], Doc("of what was to be found; corners in pixels of the source, upright")
    ] = ()
    extra: Annotated[dict[str, str], Doc("the manifest's other columns, as text")] = field(
        default_factory=dict
    )
    media: Annotated[
        MediaFacts | None, Doc("the video as found: pixels, seconds; null: never opened")
    ] = None
    plan: Annotated[
        PlanFacts | None, Doc("how it was sampled: frames, tokens, seconds; null: never planned")
    ] = None
    provenance: Annotated[Provenance, Doc("what made the row: model, tasks, version")]
    timings: Annotated[Timings, Doc("seconds of work per stage; stages overlap")]

    def __post_init__(self) -> None:
        if (self.status == "ok") != (self.code is None):
            raise ValueError(f"only a failed record has a code, got {self.status} {self.code}")
        if self.status == "failed" and (self.captions or self.answers or self.boxes):
            raise ValueError("a failed record has no results")

    @property
    def result_codes(self) -> list[FailureCode]:
        """Of the captions, answers and boxes of it that failed."""
        results: tuple[Caption | Answer | Box, ...] = (*self.captions, *self.answers, *self.boxes)
        return [result.code for result in results if result.code is not None]


# What JSON allows in a text and a terminal obeys: control characters, and those that turn text.
_OBEYED = (
    *range(0x7F, 0xA0),
    *range(0x200E, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)
_CONTROLS = {number: f"\\u{number:04x}" for number in _OBEYED}


def to_json(record: Record) -> str:
    """One line of JSON; the same nesting as the table. A terminal may be shown it."""
    return _RECORD.dump_json(record).decode().translate(_CONTROLS)


def from_json(line: str | bytes) -> Record:
    return _RECORD.validate_json(line)


def to_table(records: Iterable[Record]) -> pa.Table:
    """Records as rows of SCHEMA, in the same order."""
    return pa.Table.from_pylist([_RECORD.dump_python(record) for record in records], schema=SCHEMA)


def from_table(table: pa.Table) -> list[Record]:
    """The records of a table of this SCHEMA or an earlier one; ValueError if it holds others.

    A field that came with a later schema has a default, which earlier rows get.
    """
    written = (table.schema.metadata or {}).get(SCHEMA_KEY.encode(), b"1").decode()
    if not written.isdecimal() or int(written) > SCHEMA_VERSION:
        raise ValueError(
            f"rows of schema {written}; this vidray reads 1 to {SCHEMA_VERSION}: use a newer one"
        )
    rows = table.to_pylist(maps_as_pydicts="strict")
    return [_RECORD.validate_python(row) for row in rows]


_RECORD = TypeAdapter(Record)
_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _fields(kind: type) -> list[pa.Field]:
    hints = get_type_hints(kind, include_extras=True)
    return [_field(column.name, hints[column.name]) for column in dataclasses.fields(kind)]


def _field(name: str, hint: Any) -> pa.Field:
    metadata = None
    if get_origin(hint) is Annotated:
        hint, doc = get_args(hint)
        metadata = {"doc": doc.text}
    is_nullable = get_origin(hint) in (Union, types.UnionType)
    if is_nullable:
        (hint,) = (part for part in get_args(hint) if part is not types.NoneType)
    return pa.field(name, _arrow_type(hint), nullable=is_nullable, metadata=metadata)


def _arrow_type(hint: Any) -> pa.DataType:
    if get_origin(hint) is tuple:
        return pa.list_(_field("item", get_args(hint)[0]))
    if get_origin(hint) is dict:
        return pa.map_(*map(_arrow_type, get_args(hint)))
    if get_origin(hint) is Literal or hint is FailureCode:
        return pa.string()
    if dataclasses.is_dataclass(hint):
        return pa.struct(_fields(hint))  # type: ignore[arg-type]
    return _SCALARS[hint]


SCHEMA = pa.schema(_fields(Record), metadata={SCHEMA_KEY: str(SCHEMA_VERSION)})
