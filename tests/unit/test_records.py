"""One typed row per video: the same through Arrow, Parquet and JSON, and its units with it."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import FailureCode
from pipeline.tasks.records import (
    SCHEMA,
    Answer,
    Box,
    Caption,
    MediaFacts,
    PlanFacts,
    Provenance,
    Record,
    Timings,
    WindowFacts,
    from_json,
    from_table,
    to_json,
    to_table,
)

MADE_BY = Provenance(model="tiny", model_digest="ab12", tasks_digest="cd34", version="0.1.0")
TIMINGS = Timings(
    plan_s=0.1,
    read_s=0.2,
    encode_s=0.3,
    prefill_s=0.4,
    generate_s=0.5,
    first_word_s=0.6,
    total_s=1.5,
)
GOOD = Record(
    video_id="0a",
    uri="clips/é\n.mp4",
    etag="e1",
    size_bytes=123,
    status="ok",
    flags=("truncated",),
    coverage=0.5,
    captions=(
        Caption(start_s=0.0, end_s=2.0, window_index=None, text="A 犬.", finish_reason="stop"),
    ),
    answers=(
        Answer(
            question="How many?",
            start_s=0.0,
            end_s=2.0,
            window_index=0,
            answer="2",
            finish_reason="length",
        ),
    ),
    boxes=(
        Box(
            query="the dog",
            time_s=1.0,
            outcome="found",
            label="dog",
            x0=0.5,
            y0=1.0,
            x1=9.25,
            y1=8.0,
            adjusted=("clamped",),
            raw="(1,2),(3,4)",
        ),
        Box(query="the cat", time_s=1.0, outcome="absent", raw="not there"),
    ),
    media=MediaFacts(
        container="mp4",
        codec="h264",
        pixel_format="yuv420p",
        width=64,
        height=48,
        rotation_deg=0,
        num_frames=20,
        duration_s=2.0,
        is_still=False,
    ),
    plan=PlanFacts(
        hash="0123456789abcdef",
        preset="paper",
        fps=2.0,
        num_frames=4,
        num_tokens=8,
        windows=(
            WindowFacts(start_s=0.0, end_s=2.0, width=56, height=56, times_s=(0.0, 0.5, 1.0, 1.5)),
        ),
    ),
    provenance=MADE_BY,
    timings=TIMINGS,
)
FAILED = Record(
    video_id="0b",
    uri="gone.mp4",
    etag=None,
    size_bytes=None,
    status="failed",
    code=FailureCode.NOT_FOUND,
    detail="there is no such file",
    provenance=MADE_BY,
    timings=TIMINGS,
)


def test_records_are_the_same_after_parquet():
    file = io.BytesIO()
    pq.write_table(to_table([GOOD, FAILED]), file)
    assert from_table(pq.read_table(file)) == [GOOD, FAILED]


@pytest.mark.parametrize("record", [GOOD, FAILED], ids=["ok", "failed"])
def test_records_are_the_same_after_json_and_fill_one_line(record):
    line = to_json(record)
    assert "\n" not in line
    assert from_json(line) == record


def test_json_and_table_nest_alike():
    assert list(json.loads(to_json(GOOD))) == SCHEMA.names


@pytest.mark.parametrize("code", FailureCode)
def test_every_failure_code_survives_the_table(code):
    (record,) = from_table(to_table([Record(**{**_fields(FAILED), "code": code})]))
    assert record.code is code


def test_an_empty_table_has_all_columns():
    assert to_table([]).schema.equals(SCHEMA, check_metadata=True)


def test_columns_say_their_units_in_the_file_itself():
    file = io.BytesIO()
    pq.write_table(to_table([GOOD]), file)
    box = pq.read_schema(file).field("boxes").type.value_type
    assert b"source pixels" in box.field("x0").metadata[b"doc"]


def test_what_must_be_there_cannot_be_null():
    assert not SCHEMA.field("status").nullable
    assert SCHEMA.field("code").nullable
    assert pa.types.is_list(SCHEMA.field("captions").type)


@pytest.mark.parametrize(
    "change",
    [
        {"code": FailureCode.NOT_FOUND},
        {"status": "failed"},
        {"status": "failed", "code": FailureCode.TRUNCATED},
    ],
    ids=["ok with a code", "failed without one", "failed with captions"],
)
def test_a_record_that_contradicts_itself_is_refused(change):
    with pytest.raises(ValueError, match="record"):
        Record(**{**_fields(GOOD), **change})


@pytest.mark.parametrize("outcome", ["absent", "failed"])
def test_only_a_found_box_has_corners(outcome):
    with pytest.raises(ValueError, match="corners"):
        Box(query="it", time_s=0.0, outcome=outcome, x0=0.0, y0=0.0, x1=1.0, y1=1.0, raw="")
    with pytest.raises(ValueError, match="corners"):
        Box(query="it", time_s=0.0, outcome="found", raw="")


def _fields(record: Record) -> dict[str, object]:
    return {name: getattr(record, name) for name in SCHEMA.names}


def test_every_column_says_its_meaning_and_unit_in_the_files_own_metadata():
    buffer = io.BytesIO()
    pq.write_table(to_table([GOOD]), buffer)
    schema = pq.read_schema(buffer)
    docs = {field.name: (field.metadata or {}).get(b"doc", b"").decode() for field in schema}
    assert [name for name, doc in docs.items() if not doc] == []
    units = {"size_bytes": "bytes", "timings": "seconds", "boxes": "pixels", "coverage": "share"}
    assert all(unit in docs[name] for name, unit in units.items())
