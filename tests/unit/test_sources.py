"""Where videos come from: every place and every manifest gives the same items, as a stream."""

import io
import json
import os
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import BadInput, ConfigError, FailureCode, StoreDenied
from pipeline.store.archive import Archive
from pipeline.store.items import Item, items_to_table, table_to_items
from pipeline.store.open import open_store
from pipeline.store.passed_over import MAX_TYPES, PassedOver, describe_passed_over, type_of
from pipeline.store.s3 import S3Store
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import SourceFilter, compile_glob, find_items, require_apart


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "clips"
    for name in ["a.mp4", "B.MOV", "notes.txt", "sub/c.webm", "sub/deep/d.mp4", "x[1].mp4"]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"v" * len(name))
    return root


def names(folder: Path, items) -> list[str]:
    return [os.path.relpath(item.uri, folder) for item in items]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["B.MOV", "a.mp4", "sub/c.webm", "sub/deep/d.mp4", "x[1].mp4"]),
        ("/", ["B.MOV", "a.mp4", "sub/c.webm", "sub/deep/d.mp4", "x[1].mp4"]),
        ("/*.mp4", ["a.mp4", "x[1].mp4"]),
        ("/**/*.mp4", ["a.mp4", "sub/deep/d.mp4", "x[1].mp4"]),
        ("/sub/*", ["sub/c.webm"]),
        ("/sub/d*/?.mp4", ["sub/deep/d.mp4"]),
        ("/[!x]*.mp4", ["a.mp4"]),
        ("/a.mp4", ["a.mp4"]),
        ("/x[1].mp4", ["x[1].mp4"]),
    ],
)
def test_a_folder_a_file_or_a_pattern_names_videos(
    folder: Path, pattern: str, expected: list[str]
) -> None:
    assert names(folder, find_items(f"{folder}{pattern}")) == expected


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (SourceFilter(limit=2), ["B.MOV", "a.mp4"]),
        (SourceFilter(suffixes=(".txt",)), ["notes.txt"]),
        (SourceFilter(min_bytes=10), ["sub/c.webm", "sub/deep/d.mp4"]),
        (SourceFilter(max_bytes=5), ["B.MOV", "a.mp4"]),
    ],
)
def test_filters_choose_by_type_size_and_number(
    folder: Path, chosen: SourceFilter, expected: list[str]
) -> None:
    assert names(folder, find_items(str(folder), chosen)) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", {".txt": 1}),
        ("/sub/*", {}),
        ("/*.txt", {".txt": 1}),
        ("/a.mp4", {}),
    ],
)
def test_what_is_listed_and_not_taken_is_counted_by_type(
    folder: Path, pattern: str, expected: dict[str, int]
) -> None:
    passed_over = PassedOver()
    list(find_items(f"{folder}{pattern}", passed_over=passed_over))
    assert passed_over == expected


def test_a_video_that_is_passed_over_is_counted_by_why(folder: Path) -> None:
    def left(**asked: Any) -> str:
        passed_over = PassedOver()
        list(find_items(str(folder), SourceFilter(**asked), passed_over=passed_over))
        return describe_passed_over(passed_over)

    assert left(min_bytes=10) == "4 files passed over: too small 3, .txt 1"
    assert left(max_bytes=4) == "6 files passed over: too large 5, .txt 1"
    (folder / "a.mp4").rename(folder / ".a.mp4")
    assert left(hidden=False) == "2 files passed over: .txt 1, hidden 1"


def test_types_are_few_however_files_are_called() -> None:
    assert [type_of(key) for key in ("a/b.RM", "a.b/c", ".hidden", "x.", "x.<b>", "x.é")] == [
        ".rm",
        *["no suffix"] * 5,
    ]
    passed_over = PassedOver()
    for number in range(10_000):
        passed_over.add(type_of(f"clip.{number}"))
    assert passed_over.total() == 10_000
    assert len(passed_over) == MAX_TYPES + 1
    assert describe_passed_over(passed_over).endswith("more types")
    assert describe_passed_over({}) == ""


def test_listed_items_carry_their_identity(folder: Path) -> None:
    item = next(find_items(f"{folder}/a.mp4"))
    assert item.size_bytes == 5
    assert item.etag == open_store(str(folder)).head("a.mp4").etag


def test_a_place_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder or file"):
        find_items(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="bucket"):
        find_items("s3://")


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("**", "a/b/c", True),
        ("*", "a/b", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        ("[^]x", "^x", True),
        ("a[", "a[", True),
        ("a.c", "abc", False),
        ("new\nline*", "new\nline.mp4", True),
    ],
)
def test_patterns_mean_what_a_shell_means(pattern: str, key: str, matches: bool) -> None:
    assert bool(compile_glob(pattern).fullmatch(key)) is matches


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("[2024] a*", ["b.mp4", "c.mp4"]),
        ("[2024] a*/", ["b.mp4", "c.mp4"]),
        ("[2024] a*/c*", ["c.mp4"]),
        ("[2024] a*/b.mp4", ["b.mp4"]),
        ("[0-9]/*", ["d.mp4"]),  # no folder has this name
    ],
)
def test_a_folder_is_meant_by_its_name_whatever_is_in_it(
    written: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("[2024] a*/b.mp4", "[2024] a*/c.mp4", "2/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"video")
    monkeypatch.chdir(tmp_path)
    assert [os.path.basename(item.uri) for item in find_items(written)] == names
    assert [os.path.basename(item.uri) for item in find_items(f"{tmp_path}/{written}")] == names


ASKED = {"uri": "b.mp4", "questions": ["Who?", "Why?"], "ground": ["cat"], "start_s": 1.5}
ASKED |= {"end_s": 3.0}


def as_txt() -> bytes:
    return "\ufeffa.mp4\r\n\nb.mp4\n".encode()


def as_csv() -> bytes:
    return b'uri,questions,ground,start_s,end_s\na.mp4,,,,\nb.mp4,"[""Who?"",""Why?""]",cat,1.5,3\n'


def as_jsonl() -> bytes:
    return json.dumps({"uri": "a.mp4"}).encode() + b"\n\n" + json.dumps(ASKED).encode()


def as_parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{**dict.fromkeys(ASKED), "uri": "a.mp4"}, ASKED]), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [as_txt, as_csv, as_jsonl, as_parquet])
def test_every_manifest_format_gives_the_same_items(
    make: Callable[[], bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"list.{make.__name__.removeprefix('as_')}"
    path.write_bytes(make())
    plain = Item(uri=str(tmp_path / "a.mp4"))
    asked = Item(
        uri=str(tmp_path / "b.mp4"),
        questions=("Who?", "Why?"),
        ground=("cat",),
        start_s=1.5,
        end_s=3.0,
    )
    expected = [plain, Item(uri=asked.uri) if make is as_txt else asked]
    assert list(find_items(str(path))) == expected


def test_only_s3_is_a_scheme_in_a_manifest(tmp_path: Path) -> None:
    lines = ["s3://bucket/k.mp4", "/abs/x.mp4", "http:/x", "concat:a|b", "-i", "sub/y"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    uris = [item.uri for item in find_items(str(tmp_path / "list.txt"))]
    assert uris[:2] == lines[:2]
    assert uris[2:] == [os.path.normpath(tmp_path / line) for line in lines[2:]]
    archive = Archive(folder=str(tmp_path), max_bytes=100)
    with pytest.raises(BadInput) as error, archive.open(Item(uri=uris[2])):
        pass
    assert error.value.code is FailureCode.NOT_FOUND


@pytest.mark.parametrize("link", ["http://127.0.0.1/x.mp4", "gs://b/x.mp4", "file:///x.mp4"])
def test_a_link_that_nobody_follows_is_told_before_the_first_video(
    link: str, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(f"x.mp4\n{link}\n")
    with pytest.raises(ConfigError, match=f"list.txt, line 2: uri must be a path .*, got {link}"):
        list(find_items(str(tmp_path / "list.txt")))
    with pytest.raises(ConfigError, match=f"^{link} is neither a path nor s3://bucket/key"):
        find_items(link)


def test_items_survive_the_trip_through_arrow() -> None:
    items = [
        Item(uri="/a", etag="e", size_bytes=3, questions=("é?",), end_s=2.0, extra={"k": "v"}),
        Item(uri="/b"),
    ]
    table = items_to_table(items)
    assert list(table_to_items(table)) == items
    assert table["video_id"].to_pylist() == [item.video_id for item in items]


def test_an_id_depends_on_place_range_and_questions_not_on_the_bytes() -> None:
    base = Item(uri="/caf\u00e9.mp4")
    assert base.video_id == Item(uri="/caf\u00e9.mp4", etag="other", size_bytes=9).video_id
    others = [
        Item(uri="/cafe\u0301.mp4"),
        Item(uri="/caf\u00e9.mp4", start_s=1.0),
        Item(uri="/caf\u00e9.mp4", questions=("x",)),
        Item(uri="/caf\u00e9.mp4", ground=("x",)),
    ]
    assert len({item.video_id for item in [base, *others]}) == 5


def test_a_local_video_is_lent_in_place_and_a_change_is_noticed(folder: Path) -> None:
    archive = Archive(folder=str(folder), max_bytes=100)
    item = next(find_items(f"{folder}/a.mp4"))
    with archive.open(item) as copy:
        assert copy.path == item.uri
    change = [(folder / "a.mp4").write_bytes, len]  # during the loan; before the next one
    for act in change:
        with pytest.raises(BadInput) as error, archive.open(item):
            act(b"another video")
        assert error.value.code is FailureCode.SOURCE_CHANGED


def test_listing_a_large_flat_folder_needs_no_object_per_file(tmp_path: Path) -> None:
    for index in range(8_000):
        os.close(os.open(tmp_path / f"{index:06d}.mp4", os.O_CREAT))
    tracemalloc.start()
    count = sum(1 for _ in find_items(str(tmp_path)))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 8_000
    assert peak_bytes < 100 * 8_000  # an ObjectInfo, its key and its etag alone are 300


def test_a_folder_that_may_not_be_read_is_denied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StoreDenied):
        list(find_items(str(folder)))


@pytest.mark.parametrize(
    ("pattern", "is_passed_over"),
    [("", True), ("**/*.mp4", True), ("*/*/*.mp4", True), ("*/*.mp4", False), ("*.mp4", False)],
)
def test_a_folder_below_that_may_not_be_read_is_named_and_counted(
    pattern: str, is_passed_over: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub" / "closed").mkdir(parents=True)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    passed_over, told = PassedOver(), list[str]()
    source = os.path.join(tmp_path, pattern)
    assert list(find_items(source, passed_over=passed_over, left_out=told.append)) == []
    assert dict(passed_over) == ({"unreadable folder": 1} if is_passed_over else {})
    named = f"{tmp_path}/sub/closed: the folder cannot be read (Permission denied)"
    assert told == ([named] if is_passed_over else [])


@pytest.mark.parametrize(
    ("source", "out", "words"),
    [
        ("clips", "clips", "is inside the output"),
        ("clips", "clips/rows", "is inside the source"),
        ("clips/sub", "clips", "is inside the output"),
        ("clips/list.csv", "clips", "is inside the output"),
        ("clips/**/*.mp4", "clips/sub", "is inside the source"),
        ("link", "clips/rows", "is inside the source"),
        ("clips", "link/rows", "is inside the source"),
        ("clips/../clips", "./clips/rows", "is inside the source"),
        ("s3://b", "s3://b/rows", "is inside the source"),
        ("s3://b/clips/", "s3://b/clips/rows", "is inside the source"),
        ("s3://b/rows/clips", "s3://b/rows", "is inside the output"),
        ("clips", "clips2", None),
        ("clips/a.mp4", "clips/rows", None),
        ("clips/*.mp4", "clips/rows", None),
        ("[clips]", "[clips]/rows", "is inside the source"),
        ("**/*.mp4", "rows", "is inside the source"),
        ("**/*.mp4", "/rows", None),
        ("s3://b/clips", "s3://b/clips2", None),
        ("s3://b/clips", "s3://c/clips/rows", None),
    ],
)
def test_videos_and_rows_lie_apart(
    source: str, out: str, words: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "[clips]").mkdir()
    (tmp_path / "link").symlink_to("clips")
    with pytest.raises(ConfigError, match=words) if words else nullcontext():
        require_apart(source, out)


AWS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "HOME": "/nonexistent"}


def test_s3_settings_come_from_the_usual_variables() -> None:
    config = S3Config.from_environment(
        {**AWS, "AWS_ENDPOINT_URL": "http://one:1/", "AWS_ENDPOINT_URL_S3": "http://two:2/"}
    )
    assert (config.host, config.secure, config.region) == ("two:2", False, "us-east-1")
    assert S3Config.from_environment(AWS).endpoint == "https://s3.amazonaws.com"
    assert S3Config.from_environment({**AWS, "AWS_REGION": "eu-west-1"}).region == "eu-west-1"
    assert S3Config.from_environment({**AWS, "AWS_MAX_ATTEMPTS": "3"}).retry.attempts == 3
    assert isinstance(open_store("s3://bucket/some/prefix", config), S3Store)
    assert open_store("s3://bucket/some/prefix", config).uri == "s3://bucket/some/prefix"


@pytest.mark.parametrize(
    "environment",
    [
        {**AWS, "AWS_ENDPOINT_URL": "ftp://x"},
        {**AWS, "AWS_ENDPOINT_URL": "http://x/path"},
        {**AWS, "AWS_MAX_ATTEMPTS": "0"},
        {**AWS, "AWS_MAX_ATTEMPTS": "many"},
        {"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"},
    ],
)
def test_wrong_s3_settings_are_named_at_once(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        S3Config.from_environment(environment)
