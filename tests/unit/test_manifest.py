"""Lists of videos as people have them are read, and what cannot be is told by its line."""

import gc
import gzip
import io
import json
import sys
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
REST = {name: value for name, value in ROW.items() if name != "uri"}
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
        (".txt", "URL\tstart_s\tlabel\tscore\r\na.mp4\t1,5\tcat\t3\r\n".encode("utf-16")),
        (".csv", "\n\nuri,start_s,label,score\n,,,\na.mp4,1.5,cat,3\n,,,\n"),
        (".csv", "uri,start_s,label,score,,\na.mp4,1.5,cat,3,,\n"),
        (".csv", "uri,start_s,label,score\na.mp4,1.5,cat,3,,\n"),
        (".csv", "label, uri, start_s, score\ncat, a.mp4, 1.5, 3\n"),
        (".csv", "label,score, URL ,start_s\ncat,3,a.mp4,1.5\n"),
        (".csv", "path,start_s,label,score\na.mp4,1.5,cat,3\n"),
        (".csv", "Video,start_s,label,score\na.mp4,1.5,cat,3\n"),
        (".jsonl", json.dumps(ROW)),
        (".jsonl", "\ufeff" + json.dumps(ROW) + "\n\n"),
        (".parquet", as_parquet([ROW])),
        (".csv", "file_name,start_s,label,score\na.mp4,1.5,cat,3\n"),
        (".csv", "filepath,start_s,label,score\na.mp4,1.5,cat,3\n"),
        (".json", json.dumps([ROW], indent=2)),
        (".json", "\ufeff" + json.dumps([ROW])),
        (".json", json.dumps(ROW) + "\n"),
        (".csv", "uri,start_s,end_s,label,score\na.mp4,1.5,nan,cat,3\n"),
        (".jsonl", json.dumps(ROW | {"end_s": float("nan")})),
        (".jsonl", json.dumps({"video": {"path": "a.mp4", "bytes": None}} | REST)),
        (".parquet", as_parquet([{"video": {"path": "a.mp4", "bytes": None}} | REST])),
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


def test_lines_that_say_something_else_are_no_videos() -> None:
    content = "# clips of May\n\n  \n#EXTM3U\n#EXTINF:10,One\na.mp4\n#1.mp4\n./# b.mp4\n"
    assert [item.uri for item in read(content, ".txt")] == ["a.mp4", "#1.mp4", "./# b.mp4"]


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_the_label_behind_a_path_rides_along(suffix: str) -> None:
    content = "abseiling/a b.mp4 12\nx/v.3gp 0 7\nbook 3\nc.mp4\n"
    assert [(item.uri, item.extra) for item in read(content, suffix)] == [
        ("abseiling/a b.mp4", {"label": "12"}),
        ("x/v.3gp", {"label": "0 7"}),
        ("book 3", {}),
        ("c.mp4", {}),
    ]
    assert read("a.mp4,12\nb.mp4,1\n", ".txt")[0] == Item(uri="a.mp4", extra={"label": "12"})


def test_a_json_array_may_hold_plain_uris() -> None:
    assert [item.uri for item in read('["a.mp4", "b.mp4"]', ".json")] == ["a.mp4", "b.mp4"]
    assert read("[]", ".json") == []


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".csv", "a.mp4,cat\nb.mp4,dog\n", "line 1: a header is missing: .*'uri,name2'"),
        (".csv", "cat;clips/a.mp4\n", "line 1: a header is missing: .*'name1,uri'"),
        (".csv", "clip,label\na,cat\n", "line 1: no column is named uri, .* or video_path, got"),
        (".csv", "uri,uri\na,b\n", "line 1: the column 'uri' stands there twice"),
        (".csv", "uri\na\nb\nc,d\n", "line 4: 2 fields, where the header names 1"),
        (".csv", "uri,n\na,1\n\nb\n", "line 4: 1 fields, where the header names 2"),
        (".csv", "sep=;\nuri;n\na\n", "line 3: 1 fields"),
        (".csv", 'uri,questions\na,"[1"\n', r"line 2: questions must be a text .*got \[1"),
        (".csv", 'uri\na\n"b', "line 3: a quotation mark is never closed"),
        (".csv", 'uri,n\na,"b\nc,d\n', "line 2: a quotation mark is never closed"),
        (".csv", 'uri,n\na,"' + "b\n" * 200_000, "line 2: a quotation mark is never closed"),
        (".csv", 'uri,n\n"a" b,c\n', "line 2: not CSV: "),
        (".csv", 'uri,n\na,1\n"b\nc",1,"d\ne"\n', "line 3: 3 fields"),
        (".csv", 'uri,n\n"a\nb",1\n,2\n', "line 4: uri must be a path or s3://bucket/key"),
        (".csv", "uri,start_s\na,1.5\nb,soon\n", "line 3: start_s must be a number of seconds"),
        (".csv", "uri,start_s,end_s\na,5,5\n", "line 2: a range needs 0 <= start_s < end_s"),
        (".csv", b"uri\na\n\xe9.mp4\n", "line 3: not UTF-8 text; save it as UTF-8"),
        (".csv", "uri\na\n".encode("utf-16")[:-1] + b"", "line 2: not UTF-16 text"),
        (".csv", "uri\na\n" + "x" * MAX_LINE_CHARS, f"line 3: longer than {MAX_LINE_CHARS}"),
        (".csv", f"uri,n\na,{'x' * MAX_EXTRA_CHARS}\n", f"line 2: .*limit {MAX_EXTRA_CHARS}"),
        (".csv", "uri,n\na,1\n".encode("utf-16-le"), "line 1: not UTF-8 text; save it as UTF-8"),
        (".jsonl", '{"name": "a"}', "line 1: no field is named uri, .*, got name; add one"),
        (".txt", "a\n\n" + "x" * MAX_LINE_CHARS, "line 3: longer"),
        (".jsonl", '{"uri": "a"}\n\n{"uri": 5}', "line 3: uri must be .*, got 5"),
        (".jsonl", '{"uri": "a"}\n{', "line 2: not a JSON object: .* at character"),
        (".jsonl", "[1]", r"line 1: not a JSON object, got \[1\]"),
        (".jsonl", "[" * 100_000, "line 1: not a JSON object: nested too deep"),
        (".jsonl", '{"uri": "a", "start_s": Infinity}', "line 1: a range needs"),
        (".jsonl", '[{"uri": "a"}]', "line 1: not a JSON object, got .*; write one a line"),
        (".jsonl", '[\n{"uri": "a"}\n]', "line 1: not a JSON object: .*; write one a line"),
        (
            ".csv",
            "label,youtube_id,time_start,time_end,split\nabseiling,0c,5,15,train\n",
            "line 1: no column is named uri, .*youtube_id.*; add one with each video's path",
        ),
        (".json", '[{"uri": "a"},\n{"name": "b"}]', "entry 2: no field is named uri"),
        (".json", '[{"uri": "a"}, 5]', "entry 2: not a JSON object, got 5"),
        (".json", '[{"uri": "a"},\n{"uri": b}]', "line 2: not JSON: Expecting value"),
        (".json", '["a" "b"]', "entry 1: not JSON: the array goes on without a comma"),
        (".json", '["a"', "entry 1: not JSON: .*has no end"),
        (".json", '["a",', "line 1: not JSON"),
        (".json", "[" * 100_000, "entry 1: not a JSON object: nested too deep"),
        (".json", '{"videos": ["a"]}', "line 1: no field is named uri"),
        (".csv", gzip.compress(b"uri\na"), "packed by gzip; unpack it"),
        (".csv", b"PK\3\4" + bytes(26), "a workbook or an archive; save it as CSV"),
        (".csv", as_parquet([ROW]), "Parquet; name it .parquet"),
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


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_who_stops_at_a_line_and_closes_the_file_hears_no_more_of_it(
    suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    lines = b"uri\na\nb\n" if suffix != ".jsonl" else b'{"uri": "a"}\n{"uri": "b"}\n'
    with io.BytesIO(lines) as file:
        items = read_manifest(file, name="list", suffix=suffix, resolve=str)
        next(items)
    del items
    gc.collect()
    assert complaints == []


def test_good_lines_come_before_a_bad_one_is_read() -> None:
    items = read_manifest(io.BytesIO(b"uri\na\nb,c\n"), name="list", suffix=".csv", resolve=str)
    assert next(items).uri == "a"
    with pytest.raises(ConfigError, match="line 3"):
        next(items)
