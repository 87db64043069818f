"""Lists of videos as people have them are read, and what cannot be is told by its line."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.store.items import Item
from pipeline.store.manifest import MAX_EXTRA_CHARS, MAX_LINE_CHARS, read_manifest


def read(content: str | bytes, suffix: str = ".csv") -> list[Item]:
    data = content.encode() if isinstance(content, str) else content
    return list(read_manifest(io.BytesIO(data), name="list", suffix=suffix, resolve=str))


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


ROW = {"uri": "a.mp4", "start_s": 1.5, "label": "cat", "score": 3}
ITEM = Item(uri="a.mp4", start_s=1.5, extra={"label": "cat", "score": "3"})


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".csv", "uri,start_s,label,score\na.mp4,1.5,cat,3\n"),
        (".csv", "uri;start_s;label;score\r\na.mp4;1,5;cat;3\r\n"),
        (".csv", "sep=;\nuri;start_s;label;score\na.mp4;1,5;cat;3\n"),
        (".csv", "uri\tstart_s\tlabel\tscore\na.mp4\t1.5\tcat\t3\n"),
        (".tsv", "uri\tstart_s\tlabel\tscore\na.mp4\t1.5\tcat\t3\n"),
        (".csv", "\ufeffuri,start_s,label,score\na.mp4,1.5,cat,3\n"),
        (".csv", "uri\tstart_s\tlabel\tscore\r\na.mp4\t1.5\tcat\t3\r\n".encode("utf-16")),
        (".csv", "\n\nuri,start_s,label,score\n,,,\na.mp4,1.5,cat,3\n,,,\n"),
        (".csv", "uri,start_s,label,score,,\na.mp4,1.5,cat,3,,\n"),
        (".csv", "label,score, URL ,start_s\ncat,3,a.mp4,1.5\n"),
        (".csv", "path,start_s,label,score\na.mp4,1.5,cat,3\n"),
        (".csv", "Video,start_s,label,score\na.mp4,1.5,cat,3\n"),
        (".jsonl", json.dumps(ROW)),
        (".jsonl", "\ufeff" + json.dumps(ROW) + "\n\n"),
        (".parquet", as_parquet([ROW])),
    ],
    ids=str,
)
def test_what_spreadsheets_and_scripts_write_is_read(suffix: str, content: str | bytes) -> None:
    assert read(content, suffix) == [ITEM]


def test_other_columns_ride_along_as_text_whatever_they_hold() -> None:
    row = {"uri": "a", "tags": ["x", 1], "deep": {"k": None}, "no": None, "ok": True, "s": "\ud800"}
    (item,) = read(json.dumps(row), ".jsonl")
    assert item.extra == {"tags": '["x", 1]', "deep": '{"k": null}', "ok": "true", "s": "\\ud800"}
    assert item.video_id == Item(uri="a").video_id  # they change nothing
    assert hash(item) == hash(Item(uri="a"))


def test_the_first_name_of_a_place_is_it_and_the_others_ride_along() -> None:
    (item,) = read("path,url,video\np,u,v\n")
    assert (item.uri, item.extra) == ("u", {"path": "p", "video": "v"})


@pytest.mark.parametrize("name", ["questions", "question", "ask"])
def test_a_question_column_is_asked(name: str) -> None:
    (item,) = read(f'uri,{name},ground\na,Who?,"[""cat"", ""dog""]"\n')
    assert (item.questions, item.ground, item.extra) == (("Who?",), ("cat", "dog"), {})


@pytest.mark.parametrize("first", ["a.mp4", "clips/a", "s3://bucket/a"])
def test_a_list_without_a_header_is_a_list(first: str) -> None:
    assert [item.uri for item in read(f"{first}\nb.mp4\n")] == [first, "b.mp4"]
    assert [item.uri for item in read(f"{first}\n")] == [first]


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".csv", "a.mp4,cat\nb.mp4,dog\n", "line 1: a header is missing: .*'uri,name2'"),
        (".csv", "cat;clips/a.mp4\n", "line 1: a header is missing: .*'name1,uri'"),
        (".csv", "file,label\na,cat\n", "line 1: no column is named uri, url, path or video, got"),
        (".csv", "uri,uri\na,b\n", "line 1: the column 'uri' stands there twice"),
        (".csv", "uri\na\nb\nc,d\n", "line 4: 2 fields, where the header names 1"),
        (".csv", "uri,n\na,1\n\nb\n", "line 4: 1 fields, where the header names 2"),
        (".csv", "sep=;\nuri;n\na\n", "line 3: 1 fields"),
        (".csv", 'uri,questions\na,"[1"\n', r"line 2: questions must be a text .*got \[1"),
        (".csv", 'uri\na\n"b', "line 3: not CSV"),
        (".csv", 'uri,n\n"a\nb",1\n,2\n', "line 4: uri must be a path or s3://bucket/key"),
        (".csv", "uri,start_s\na,1.5\nb,soon\n", "line 3: start_s must be a number of seconds"),
        (".csv", "uri,start_s,end_s\na,5,5\n", "line 2: a range needs 0 <= start_s < end_s"),
        (".csv", b"uri\na\n\xe9.mp4\n", "line 3: not UTF-8 text; save it as UTF-8"),
        (".csv", "uri\na\n".encode("utf-16")[:-1] + b"", "line 2: not UTF-16 text"),
        (".csv", "uri\na\n" + "x" * MAX_LINE_CHARS, f"line 3: longer than {MAX_LINE_CHARS}"),
        (".csv", f"uri,n\na,{'x' * MAX_EXTRA_CHARS}\n", f"line 2: .*limit {MAX_EXTRA_CHARS}"),
        (".txt", "a\n\n" + "x" * MAX_LINE_CHARS, "line 3: longer"),
        (".jsonl", '{"uri": "a"}\n\n{"uri": 5}', "line 3: uri must be .*, got 5"),
        (".jsonl", '{"uri": "a"}\n{', "line 2: not a JSON object: .* at character"),
        (".jsonl", "[1]", r"line 1: not a JSON object, got \[1\]"),
        (".jsonl", "[" * 100_000, "line 1: not a JSON object: nested too deep"),
        (".jsonl", '{"uri": "a", "start_s": NaN}', "line 1: a range needs"),
        (".jsonl", '{"uri": "a", "questions": [1]}', "line 1: questions must be a text or a list"),
        (".parquet", as_parquet([ROW, ROW | {"uri": None}]), "row 2: uri must be .*, got null"),
        (".parquet", b"PAR1 no", "not readable as Parquet"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "",
)
def test_what_cannot_be_read_is_told_by_its_line(
    suffix: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^manifest list(, )?:? ?.*{message}"):
        read(content, suffix)


def test_good_lines_come_before_a_bad_one_is_read() -> None:
    items = read_manifest(io.BytesIO(b"uri\na\nb,c\n"), name="list", suffix=".csv", resolve=str)
    assert next(items).uri == "a"
    with pytest.raises(ConfigError, match="line 3"):
        next(items)
