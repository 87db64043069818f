"""Where videos come from: every place and every manifest gives the same items, as a stream."""

import io
import json
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import BadInput, ConfigError, FailureCode, StoreDenied
from pipeline.store.archive import Archive
from pipeline.store.items import Item, items_to_table, table_to_items
from pipeline.store.open import open_store
from pipeline.store.s3 import S3Store
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import SourceFilter, compile_glob, find_items


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
    lines = ["s3://bucket/k.mp4", "/abs/x.mp4", "http://127.0.0.1/x", "concat:a|b", "-i", "sub/y"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    uris = [item.uri for item in find_items(str(tmp_path / "list.txt"))]
    assert uris[:2] == lines[:2]
    assert uris[2:] == [os.path.normpath(tmp_path / line) for line in lines[2:]]
    archive = Archive(folder=str(tmp_path), max_bytes=100)
    with pytest.raises(BadInput) as error, archive.open(Item(uri=uris[2])):
        pass
    assert error.value.code is FailureCode.NOT_FOUND


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


AWS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "HOME": "/nonexistent"}


def test_s3_settings_come_from_the_usual_variables() -> None:
    config = S3Config.from_environment(
        {**AWS, "AWS_ENDPOINT_URL": "http://one:1/", "AWS_ENDPOINT_URL_S3": "http://two:2/"}
    )
    assert (config.host, config.secure, config.region) == ("two:2", False, "us-east-1")
    assert (config.access_key, config.secret_key) == ("k", "s")
    assert config == S3Config.from_environment({**AWS, "AWS_ENDPOINT_URL_S3": "http://two:2"})
    assert S3Config.from_environment({"HOME": "/nonexistent"}).access_key is None
    assert S3Config.from_environment(AWS) == replace(config, endpoint="https://s3.amazonaws.com")
    assert S3Config.from_environment({**AWS, "AWS_MAX_ATTEMPTS": "3"}).retry.attempts == 3
    assert isinstance(open_store("s3://bucket/some/prefix", config), S3Store)
    assert open_store("s3://bucket/some/prefix", config).uri == "s3://bucket/some/prefix"


def test_s3_keys_come_from_a_credentials_file_and_never_show(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = hidden%1\n"
        "[other]\naws_access_key_id = b\naws_secret_access_key = hidden\naws_session_token = t\n"
    )
    base = {"AWS_SHARED_CREDENTIALS_FILE": str(file)}
    assert S3Config.from_environment(base).secret_key == "hidden%1"  # noqa: S105
    other = S3Config.from_environment({**base, "AWS_PROFILE": "other"})
    assert (other.access_key, other.session_token) == ("b", "t")
    assert "hidden" not in repr(other)


@pytest.mark.parametrize(
    "environment",
    [
        {**AWS, "AWS_ENDPOINT_URL": "ftp://x"},
        {**AWS, "AWS_ENDPOINT_URL": "http://x/path"},
        {"AWS_ACCESS_KEY_ID": "k"},
        {**AWS, "AWS_MAX_ATTEMPTS": "0"},
        {**AWS, "AWS_MAX_ATTEMPTS": "many"},
        {"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"},
        {"AWS_PROFILE": "nobody", "HOME": "/nonexistent"},
    ],
)
def test_wrong_s3_settings_are_named_at_once(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        S3Config.from_environment(environment)
