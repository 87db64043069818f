"""Records as one file that other tools open: Parquet, CSV or JSON lines, by its suffix.

Parquet and JSON lines have a row per video, as a job's parts do. CSV has no lists: there each
caption, answer and box is a line of its own, and so is a video that failed.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from jobs.places import written_to
from pipeline.store.parquet import to_bytes
from pipeline.tasks.records import Record, to_json, to_table

CSV_COLUMNS = (
    *("uri", "video_id", "status", "code", "detail", "kind", "asked", "said"),
    *("start_s", "end_s", "outcome", "x0", "y0", "x1", "y1", "finish_reason", "flags"),
)


def write_rows(records: Sequence[Record], path: Path) -> None:
    """Write the file whole, or leave the one that is there."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with written_to(path), partial.open("wb") as file:
            WRITERS[path.suffix.lower()](records, file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _parquet(records: Sequence[Record], file: IO[bytes]) -> None:
    file.write(to_bytes(to_table(records)))


def _jsonl(records: Sequence[Record], file: IO[bytes]) -> None:
    file.writelines(f"{to_json(record)}\n".encode() for record in records)


def _csv(records: Sequence[Record], file: IO[bytes]) -> None:
    with io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, CSV_COLUMNS)
        writer.writeheader()
        for record in records:
            video = {name: getattr(record, name) for name in CSV_COLUMNS[:5]}
            video["flags"] = " ".join(record.flags)
            for result in _results(record):
                given = {name: value for name, value in result.items() if value is not None}
                writer.writerow(video | given)


def _results(record: Record) -> Iterator[dict[str, object]]:
    """What a line of CSV says beyond its video."""
    if record.status == "failed":
        yield {"kind": "failure"}
    for caption in record.captions:
        yield _fields(caption) | {"kind": "caption", "said": caption.text}
    for answer in record.answers:
        yield _fields(answer) | {"kind": "answer", "asked": answer.question, "said": answer.answer}
    for box in record.boxes:
        times = {"start_s": box.time_s, "end_s": box.time_s}
        yield _fields(box) | times | {"kind": "box", "asked": box.query, "said": box.raw}


def _fields(result: object) -> dict[str, object]:
    return {name: getattr(result, name, None) for name in ("code", *CSV_COLUMNS[8:-1])}


WRITERS: dict[str, Callable[[Sequence[Record], IO[bytes]], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _jsonl,
}
