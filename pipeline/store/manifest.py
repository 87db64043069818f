"""Manifests: a list of videos as txt (a uri a line), csv, jsonl or parquet, read as a stream.

Columns: uri, and optionally questions, ground (a text, or a list of them: a JSON list in csv),
start_s, end_s. Anything else is refused by name, before the job starts.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from pipeline.errors import ConfigError
from pipeline.store.items import Item
from pipeline.store.parquet import read_batches

COLUMNS = ("uri", "questions", "ground", "start_s", "end_s")
MAX_LINE_CHARS = 1 << 20
_BATCH_ROWS = 1024

Row = Mapping[str, Any]


def read_manifest(
    file: IO[bytes], *, name: str, suffix: str, resolve: Callable[[str], str]
) -> Iterator[Item]:
    """Items in file order. resolve: from a uri as written to an absolute one.

    ConfigError names the manifest and the row, counted from 1 without a header.
    """
    number = 0
    try:
        for number, row in enumerate(_READERS[suffix](file), 1):  # noqa: B007 - for the message
            yield _item(row, resolve)
    except (ValueError, TypeError, csv.Error) as error:
        # ValueError covers bad JSON, UTF-8, Parquet and ranges; the reader fails one row further.
        raise ConfigError(f"manifest {name}, row {number} or the next: {error}") from error


def _item(row: Row, resolve: Callable[[str], str]) -> Item:
    if unknown := [key for key in row if key not in COLUMNS]:
        raise ValueError(f"unknown column {unknown[0]!r}; known: {', '.join(COLUMNS)}")
    uri = row.get("uri")
    if not isinstance(uri, str) or not uri:
        raise ValueError(f"uri must be a text, got {uri!r}")
    return Item(
        uri=resolve(uri),
        questions=_texts(row.get("questions")),
        ground=_texts(row.get("ground")),
        start_s=_seconds(row.get("start_s")),
        end_s=_seconds(row.get("end_s")),
    )


def _texts(value: object) -> tuple[str, ...]:
    """No text, one text, or a list of texts; csv writes a list as JSON."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        if not value.startswith("["):
            return (value,)
        value = json.loads(value)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"expected a text or a list of texts, got {value!r}")
    return tuple(value)


def _seconds(value: Any) -> float | None:
    return None if value is None or value == "" else float(value)


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Lines without their ends; a line without end cannot fill the memory."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    while line := text.readline(MAX_LINE_CHARS):
        if len(line) == MAX_LINE_CHARS:
            raise ValueError(f"a line is longer than {MAX_LINE_CHARS} characters")
        yield line
    text.detach()


def _txt(file: IO[bytes]) -> Iterator[Row]:
    for line in _lines(file):
        if uri := line.rstrip("\r\n"):
            yield {"uri": uri}


def _csv(file: IO[bytes]) -> Iterator[Row]:
    for row in csv.DictReader(_lines(file), strict=True):
        if None in row or None in row.values():
            raise ValueError("the number of fields differs from the header's")
        yield row


def _jsonl(file: IO[bytes]) -> Iterator[Row]:
    for line in _lines(file):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise TypeError(f"a line must be a JSON object, got {line[:40]!r}")
            yield row


def _parquet(file: IO[bytes]) -> Iterator[Row]:
    for batch in read_batches(file, num_rows=_BATCH_ROWS):
        yield from batch.to_pylist()


_READERS: dict[str, Callable[[IO[bytes]], Iterator[Row]]] = {
    ".txt": _txt,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)
