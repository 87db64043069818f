"""Manifests: a list of videos as txt (a uri a line), csv, tsv, jsonl or parquet, as a stream.

Columns: uri (or url, path, video), and optionally questions (or question, ask) and ground (a text,
or a list of them: a JSON list in csv), start_s and end_s. Any other column rides along into the
video's row as text. What cannot be read ends the job before it starts, by its line.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import IO, Any

from pipeline.errors import ConfigError
from pipeline.settings import shown
from pipeline.store.items import Item
from pipeline.store.parquet import read_batches

NAMES = {
    "uri": ("uri", "url", "path", "video"),  # the first that is there; the others ride along
    "questions": ("questions", "question", "ask"),
    "ground": ("ground",),
    "start_s": ("start_s",),
    "end_s": ("end_s",),
}
MAX_LINE_CHARS = 1 << 20
MAX_EXTRA_CHARS = 1 << 16  # of a row's other columns together, names included
DELIMITERS = ",;\t|"
_BATCH_ROWS = 1024

Row = Mapping[str, Any]


class _Wrong(ValueError):
    """What a line holds is not what was expected of it. number: from 1; None: the whole file."""

    def __init__(self, what: str, *, number: int | None = None) -> None:
        super().__init__(what)
        self.number = number


def read_manifest(
    file: IO[bytes], *, name: str, suffix: str, resolve: Callable[[str], str]
) -> Iterator[Item]:
    """Items in file order. resolve: from a uri as written to an absolute one.

    file: seekable. ConfigError names the manifest, the line (of Parquet: the row) and what was
    expected there.
    """
    unit = "row" if suffix == ".parquet" else "line"
    try:
        for number, row in _READERS[suffix](file):
            try:
                yield _item(row, resolve)
            except ValueError as error:
                raise _Wrong(str(error), number=number) from error
    except _Wrong as error:
        where = "" if error.number is None else f", {unit} {error.number}"
        raise ConfigError(f"manifest {name}{where}: {error}") from error


def _item(row: Row, resolve: Callable[[str], str]) -> Item:
    ours = _ours(tuple(row))
    values = {name: row[column] for name, column in ours.items()}
    extra = {key: value for key, value in row.items() if key not in ours.values()}
    return Item(
        uri=resolve(_uri(values.get("uri"))),
        questions=_texts("questions", values.get("questions")),
        ground=_texts("ground", values.get("ground")),
        start_s=_seconds("start_s", values.get("start_s")),
        end_s=_seconds("end_s", values.get("end_s")),
        extra=_extra(extra),
    )


@cache
def _ours(columns: tuple[str, ...]) -> dict[str, str]:
    """From our name to the column that holds it, whatever its case and the blanks around it."""
    written = {column.strip().lower(): column for column in reversed(columns)}
    found = {
        name: next((written[alias] for alias in aliases if alias in written), None)
        for name, aliases in NAMES.items()
    }
    return {name: column for name, column in found.items() if column is not None}


def _uri(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"uri must be a path or s3://bucket/key, got {shown(value)}")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    """No text, one text, or a list of texts; csv writes a list as JSON."""
    if value is None or value == "":
        return ()
    if isinstance(value, str) and not value.startswith("["):
        return (value,)
    texts = _parsed(value) if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} must be a text or a list of texts, got {shown(value)}")
    return tuple(texts)


def _parsed(text: str) -> object:
    """JSON; None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _seconds(name: str, value: Any) -> float | None:
    """Spreadsheets that write semicolons between fields write a comma in numbers."""
    if value is None or value == "":
        return None
    text = str(value).strip()
    try:
        return float(text.replace(",", ".") if re.fullmatch(r"\d+,\d+", text) else text)
    except ValueError:
        raise ValueError(f"{name} must be a number of seconds, got {shown(value)}") from None


def _extra(columns: Row) -> dict[str, str]:
    """Everything else as text; what is no text is JSON."""
    texts = {
        _storable(name): _storable(
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        )
        for name, value in columns.items()
        if value is not None
    }
    num_chars = sum(len(name) + len(text) for name, text in texts.items())
    if num_chars > MAX_EXTRA_CHARS:
        raise ValueError(
            f"{len(texts)} columns beyond ours hold {num_chars} characters; limit {MAX_EXTRA_CHARS}"
        )
    return texts


def _storable(text: str) -> str:
    """Without lone surrogates, which JSON may hold and no table can."""
    return text.encode("utf-8", "backslashreplace").decode()


def _lines(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Lines with their ends, by number; a line without end cannot fill the memory."""
    is_wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")  # as spreadsheets save "Unicode text"
    file.seek(0)
    encoding, errors = ("utf-16", "replace") if is_wide else ("utf-8-sig", "surrogateescape")
    text = io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")
    number = 0
    while line := text.readline(MAX_LINE_CHARS):
        number += 1
        if len(line) == MAX_LINE_CHARS:
            raise _Wrong(f"longer than {MAX_LINE_CHARS} characters", number=number)
        if not line.isascii() and re.search("[\ud800-\udfff]" if not is_wide else "\ufffd", line):
            raise _Wrong(
                f"not {'UTF-16' if is_wide else 'UTF-8'} text; save it as UTF-8", number=number
            )
        yield number, line
    text.detach()


def _txt(file: IO[bytes]) -> Iterator[tuple[int, Row]]:
    for number, line in _lines(file):
        if uri := line.rstrip("\r\n"):
            yield number, {"uri": uri}


def _csv(file: IO[bytes]) -> Iterator[tuple[int, Row]]:
    """Fields between commas, semicolons, tabs or bars, as the header shows."""
    lines = (line for _, line in _lines(file))
    first, num_skipped = next(lines, ""), 0
    named = re.fullmatch(r"sep=(.)\s*", first)  # Excel's own first line
    if named:
        first, num_skipped = next(lines, ""), 1
    delimiter = named[1] if named else _delimiter(first)
    rows = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for row in rows:
            number = rows.line_num + num_skipped
            if not any(cell.strip() for cell in row):
                continue  # a blank line, or one of nothing but delimiters
            if header is None:
                header = _header(row, number)
                if header is not row:
                    yield number, dict(zip(header, row, strict=True))
            elif len(row) != len(header):
                raise _Wrong(
                    f"{len(row)} fields, where the header names {len(header)}", number=number
                )
            else:
                cells = zip(header, row, strict=True)
                yield number, {name: cell for name, cell in cells if name or cell}
    except csv.Error as error:
        raise _Wrong(f"not CSV: {error}", number=rows.line_num + num_skipped) from error


def _delimiter(first: str) -> str:
    """What stands between the header's fields, or else between the most fields."""
    fields = {mark: next(csv.reader([first], delimiter=mark), []) for mark in DELIMITERS}
    with_uri = (mark for mark, names in fields.items() if "uri" in _ours(tuple(names)))
    return next(with_uri, max(DELIMITERS, key=lambda mark: len(fields[mark])))


def _header(row: list[str], number: int) -> list[str]:
    """The row itself if it names columns; ["uri"] if it begins a plain list without a header."""
    repeated = [name for name in row if name and row.count(name) > 1]
    if repeated:
        raise _Wrong(f"the column {repeated[0]!r} stands there twice", number=number)
    if "uri" in _ours(tuple(row)):
        return row
    if any(map(_is_place, row)):
        if len(row) == 1:
            return ["uri"]
        raise _Wrong(
            f"a header is missing: a line such as {_example(row)!r} before this", number=number
        )
    raise _Wrong(f"no column is named {_either(NAMES['uri'])}, got {', '.join(row)}", number=number)


def _is_place(cell: str) -> bool:
    return "/" in cell or re.fullmatch(r".*\.\w{2,5}", cell) is not None


def _example(row: Sequence[str]) -> str:
    """A header for this row: its first place is the uri, the others stand for themselves."""
    first = next(index for index, cell in enumerate(row) if _is_place(cell))
    return ",".join("uri" if index == first else f"name{index + 1}" for index in range(len(row)))


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _jsonl(file: IO[bytes]) -> Iterator[tuple[int, Row]]:
    for number, line in _lines(file):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            what = f"not a JSON object: {error.msg} at character {error.pos + 1}"
            raise _Wrong(what, number=number) from error
        except RecursionError as error:
            raise _Wrong("not a JSON object: nested too deep", number=number) from error
        if not isinstance(row, dict):
            raise _Wrong(f"not a JSON object, got {shown(row)}", number=number)
        yield number, row


def _parquet(file: IO[bytes]) -> Iterator[tuple[int, Row]]:
    number = 0
    batches = read_batches(file, num_rows=_BATCH_ROWS)
    while True:
        try:
            batch = next(batches, None)
        except ValueError as error:
            raise _Wrong(str(error)) from error
        if batch is None:
            return
        for row in batch.to_pylist():
            number += 1
            yield number, row


_READERS: dict[str, Callable[[IO[bytes]], Iterator[tuple[int, Row]]]] = {
    ".txt": _txt,
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)
