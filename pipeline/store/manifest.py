"""Manifests: a list of videos as txt (a uri a line), csv, tsv, jsonl, json or parquet, as a stream.

Columns: uri (or url, path, video, file_name, ...), and optionally questions (or question, ask) and
ground (a text, or a list of them: a JSON list in csv), start_s and end_s. Any other column rides
along into the video's row as text, and so does the label of a list of `path label` lines. What
cannot be read ends the job before it starts, by its line.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import IO, Any

from pipeline.errors import ConfigError
from pipeline.settings import shown
from pipeline.store.items import Item
from pipeline.store.parquet import read_batches

NAMES = {
    "uri": (  # the first that is there; the others ride along
        *("uri", "url", "path", "video", "file", "file_name", "filename"),
        *("file_path", "filepath", "video_path"),
    ),
    "questions": ("questions", "question", "ask"),
    "ground": ("ground",),
    "start_s": ("start_s",),
    "end_s": ("end_s",),
}
MAX_LINE_CHARS = 1 << 20
MAX_ARRAY_BYTES = 256 << 20  # of a JSON array, which is read whole
MAX_EXTRA_CHARS = 1 << 16  # of a row's other columns together, names included
DELIMITERS = ",;\t|"
_BATCH_ROWS = 1024

_PACKED = {
    b"\x1f\x8b": "packed by gzip; unpack it",
    b"PK\3\4": "a workbook or an archive; save it as CSV",
    b"PAR1": "Parquet; name it .parquet",
}

_BLANKS = re.compile(r"\s*")
_LABELS = re.compile(r"(.*\.(?=\d*[a-zA-Z])\w{2,5})[\s,;|]+(-?\d+(?:[\s,;|]+-?\d+)*)\s*")

Row = Mapping[str, Any]


class _Wrong(ValueError):
    """What a line holds is not what was expected of it. number: of the line, from 1; where: of
    what has no lines; without either it is the whole file.
    """

    def __init__(self, what: str, *, number: int | None = None, where: str = "") -> None:
        super().__init__(what)
        self.where = where or ("" if number is None else f"line {number}")


def read_manifest(
    file: IO[bytes], *, name: str, suffix: str, resolve: Callable[[str], str]
) -> Iterator[Item]:
    """Items in file order. resolve: from a uri as written to an absolute one.

    file: seekable. ConfigError names the manifest, the line (of Parquet: the row, of a JSON array:
    the entry) and what was expected there.
    """
    try:
        for where, row in _READERS[suffix](file):
            try:
                yield _item(row, resolve)
            except ValueError as error:
                raise _Wrong(str(error), where=where) from error
    except _Wrong as error:
        raise ConfigError(
            f"manifest {', '.join(filter(None, (name, error.where)))}: {error}"
        ) from error


def _item(row: Row, resolve: Callable[[str], str]) -> Item:
    ours = _ours(tuple(row))
    if "uri" not in ours:
        raise ValueError(_unnamed("field", row))
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
    if isinstance(value, dict) and value.get("bytes") is None:
        value = value.get("path", value)  # a video of datasets that is not in the table itself
    if not isinstance(value, str) or not value:
        raise ValueError(f"uri must be a path or s3://bucket/key, got {shown(value)}")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    """No text, one text, or a list of texts; csv writes a list as JSON."""
    if value is None or value == "":
        return ()
    texts = _parsed(value) if isinstance(value, str) and value.startswith("[") else value
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} must be a text or a list of texts, got {shown(value)}")
    if any(_storable(text) != text for text in texts):
        raise ValueError(f"{name} must be Unicode text, got {shown(value)}")
    return tuple(texts)


def _parsed(text: str) -> object:
    """JSON; None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _seconds(name: str, value: Any) -> float | None:
    """Spreadsheets that write semicolons between fields write a comma in numbers, and pandas writes
    NaN where there is nothing.
    """
    if value is None or value == "" or str(value).lower() == "nan":
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


def _lines(file: IO[bytes], *, any_bytes: bool = False) -> Iterator[tuple[int, str]]:
    """Lines with their ends, by number; a line without end cannot fill the memory.

    any_bytes: of names, which need not be UTF-8.
    """
    start = file.read(4)
    packed = next((what for magic, what in _PACKED.items() if start.startswith(magic)), None)
    if packed is not None:
        raise _Wrong(packed)
    is_wide = start[:2] in (b"\xff\xfe", b"\xfe\xff")  # as spreadsheets save "Unicode text"
    file.seek(0)
    encoding, errors = ("utf-16", "replace") if is_wide else ("utf-8-sig", "surrogateescape")
    text = io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")
    wrong = "[\0\ufffd]" if is_wide else "\0" if any_bytes else "[\0\ud800-\udfff]"
    number = 0
    try:
        while line := text.readline(MAX_LINE_CHARS):
            number += 1
            if len(line) == MAX_LINE_CHARS:
                raise _Wrong(f"longer than {MAX_LINE_CHARS} characters", number=number)
            if re.search(wrong, line):
                kind = "UTF-16" if is_wide else "UTF-8"
                raise _Wrong(f"not {kind} text; save it as UTF-8", number=number)
            yield number, line
    finally:
        if not file.closed:  # by whoever gave up, before this was
            text.detach()


def _txt(file: IO[bytes]) -> Iterator[tuple[str, Row]]:
    """A uri a line, or a table: so spreadsheets name what they save as Unicode text."""
    for number, line in _lines(file, any_bytes=True):
        uri = line.rstrip("\r\n")
        if number == 1 and "uri" in _ours(tuple(uri.split(_delimiter(uri)))):
            break
        if uri.strip() and not _is_comment(uri):
            yield f"line {number}", _labelled(uri)
    else:
        return
    file.seek(0)
    yield from _csv(file)


def _is_comment(line: str) -> bool:
    """A name that begins so is written ./#1.mp4 where it looks like none."""
    return line.startswith("#") and (line[1:2] in ("", "#", " ", "\t") or not _is_place(line))


def _labelled(line: str) -> Row:
    """A place, and the numbers of classes behind it in lists for training classifiers."""
    found = _LABELS.fullmatch(line)
    return {"uri": line} if found is None else {"uri": found[1], "label": found[2]}


def _csv(file: IO[bytes]) -> Iterator[tuple[str, Row]]:
    """Fields between commas, semicolons, tabs or bars, as the header shows."""
    lines = (line for _, line in _lines(file))
    first, num_skipped = next(lines, ""), 0
    named = re.fullmatch(r"sep=(.)\s*", first)  # Excel's own first line
    if named:
        first, num_skipped = next(lines, ""), 1
    delimiter = named[1] if named else _delimiter(first)
    rows = csv.reader(
        chain([first], lines),
        delimiter=delimiter,
        skipinitialspace=f"{delimiter} " in first,  # as people write lists
        strict=True,
    )
    header: list[str] | None = None
    is_list = False
    num_read = 0
    try:
        for row in rows:
            number, num_read = num_read + 1 + num_skipped, rows.line_num  # where it begins
            if not any(cell.strip() for cell in row):
                continue  # a blank line, or one of nothing but delimiters
            if header is None:
                header = _header(row, number)
                is_list = header is not row
                if is_list:
                    yield f"line {number}", _labelled(row[0])
            elif len(row) < len(header) or any(row[len(header) :]):
                raise _Wrong(
                    f"{len(row)} fields, where the header names {len(header)}", number=number
                )
            elif is_list:
                yield f"line {number}", _labelled(row[0])
            else:
                cells = zip(header, row, strict=False)  # spreadsheets fill rows up with nothing
                yield f"line {number}", {name: cell for name, cell in cells if name or cell}
    except csv.Error as error:
        is_open = "unexpected end" in str(error) or "field larger" in str(error)
        what = "a quotation mark is never closed" if is_open else f"not CSV: {error}"
        raise _Wrong(what, number=num_read + 1 + num_skipped) from error


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
    raise _Wrong(_unnamed("column", row), number=number)


def _unnamed(unit: str, names: Iterable[str]) -> str:
    return (
        f"no {unit} is named {_either(NAMES['uri'])}, got {shown(', '.join(names))}; "
        "add one with each video's path or s3://bucket/key"
    )


def _is_place(cell: str) -> bool:
    return "/" in cell or re.fullmatch(r".*\.\w{2,5}", cell) is not None


def _example(row: Sequence[str]) -> str:
    """A header for this row: its first place is the uri, the others stand for themselves."""
    first = next(index for index, cell in enumerate(row) if _is_place(cell))
    return ",".join("uri" if index == first else f"name{index + 1}" for index in range(len(row)))


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _jsonl(file: IO[bytes]) -> Iterator[tuple[str, Row]]:
    for number, line in _lines(file):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            what = f"not a JSON object: {error.msg} at character {error.pos + 1}; write one a line"
            raise _Wrong(what, number=number) from error
        except RecursionError as error:
            raise _Wrong("not a JSON object: nested too deep", number=number) from error
        if not isinstance(row, dict):
            way_out = "; an array is named .json" if isinstance(row, list) else ""
            what = f"not a JSON object, got {shown(row)}; write one a line{way_out}"
            raise _Wrong(what, number=number)
        yield f"line {number}", row


def _json(file: IO[bytes]) -> Iterator[tuple[str, Row]]:
    """An array of objects, or of uris; or else one object a line."""
    data = file.read(MAX_ARRAY_BYTES + 1)
    text = data.decode(json.detect_encoding(data), errors="replace")
    if not text.lstrip().startswith("["):
        file.seek(0)
        yield from _jsonl(file)
    elif len(data) > MAX_ARRAY_BYTES:
        raise _Wrong(f"an array longer than {MAX_ARRAY_BYTES} bytes; save it as JSON lines")
    else:
        yield from _entries(text)


def _entries(text: str) -> Iterator[tuple[str, Row]]:
    """One after the other: what is right comes before what is wrong further on."""
    decoder, at = json.JSONDecoder(), _behind_blanks(text, text.index("[") + 1)
    number = 1
    while text[at : at + 1] != "]":
        where = f"entry {number}"
        try:
            row, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise _Wrong(f"not JSON: {error.msg}", number=error.lineno) from error
        except RecursionError as error:
            raise _Wrong("not a JSON object: nested too deep", where=where) from error
        if not isinstance(row, dict | str):
            raise _Wrong(f"not a JSON object, got {shown(row)}", where=where)
        yield where, {"uri": row} if isinstance(row, str) else row
        at = _behind_blanks(text, at)
        if text[at : at + 1] == ",":
            at, number = _behind_blanks(text, at + 1), number + 1
        elif text[at : at + 1] != "]":
            raise _Wrong("not JSON: the array goes on without a comma, or has no end", where=where)


def _behind_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return at if found is None else found.end()


def _parquet(file: IO[bytes]) -> Iterator[tuple[str, Row]]:
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
            yield f"row {number}", row


_READERS: dict[str, Callable[[IO[bytes]], Iterator[tuple[str, Row]]]] = {
    ".txt": _txt,
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)
