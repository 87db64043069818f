"""The local folder as an object store: whole objects, never replaced, never outside the folder."""

import errno
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import (
    BadInput,
    ConfigError,
    FailureCode,
    StoreDenied,
    StoreError,
    StoreFull,
    Transient,
)
from pipeline.store.job_plan import PLAN_KEY, open_job
from pipeline.store.local import LocalStore
from pipeline.store.objects import find, get
from pipeline.store.retry import RetryPolicy, retry
from tests.batch_driver import SPEC, make_items
from tests.stores import MemoryStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


def code_of(error: pytest.ExceptionInfo[BadInput]) -> FailureCode:
    return error.value.code


def test_an_object_comes_back_as_it_was_put(store: LocalStore) -> None:
    assert store.put_new("a/b.bin", b"0123456789")
    assert get(store, "a/b.bin", max_bytes=10) == b"0123456789"
    assert store.get_range("a/b.bin", start=3, stop=6) == b"345"
    assert store.get_range("a/b.bin", start=8, stop=99) == b"89"
    assert store.head("a/b.bin").size_bytes == 10


def test_a_put_never_replaces(store: LocalStore) -> None:
    assert store.put_new("key", b"first")
    assert not store.put_new("key", b"second")
    assert find(store, "key") == b"first"


def test_of_sixteen_racing_puts_exactly_one_wins_and_its_bytes_stay(store: LocalStore) -> None:
    barrier = threading.Barrier(16)

    def put(number: int, key: str) -> bool:
        barrier.wait(timeout=10)
        return store.put_new(key, bytes([number]) * 1000)

    with ThreadPoolExecutor(16) as pool:
        for key in [f"race/{index}" for index in range(10)]:
            won = list(pool.map(put, range(16), [key] * 16))
            assert won.count(True) == 1
            assert find(store, key) == bytes([won.index(True)]) * 1000
    assert all(not info.key.endswith(".tmp") for info in store.scan())


def test_keys_are_verbatim(store: LocalStore) -> None:
    keys = [
        "caf\u00e9",
        "cafe\u0301",
        "-i",
        "concat:a|b",
        "file:x",
        "new\nline",
        "\u202egpj.mp4",
        "🎬",
    ]
    for key in keys:
        assert store.put_new(key, key.encode())
    assert {info.key for info in store.scan()} == set(keys)
    assert all(find(store, key) == key.encode() for key in keys)


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../../up", "a//b", ".", "nul\0", "x" * 1025, "\ud800"]
)
def test_a_key_that_is_none_is_not_found_and_cannot_be_put(store: LocalStore, key: str) -> None:
    store.put_new("a/b", b"here")
    for call in (store.head, lambda key: store.put_new(key, b"")):
        with pytest.raises(BadInput) as error:
            call(key)
        assert code_of(error) is FailureCode.NOT_FOUND


def make_symlink(path: Path) -> None:
    path.symlink_to("secret")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # a socket's path is short
        server.bind(path.name)


@pytest.mark.parametrize("make", [make_symlink, Path.mkdir, os.mkfifo, make_socket])
def test_what_is_no_regular_file_is_refused_without_waiting(
    make, store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store.put_new("secret", b"secret")
    make(tmp_path / "store" / "odd.mp4")
    with pytest.raises(BadInput) as error:
        get(store, "odd.mp4", max_bytes=100)
    assert code_of(error) is FailureCode.NOT_A_REGULAR_FILE


def test_odd_files_are_listed_so_that_they_fail_by_name(store: LocalStore, tmp_path: Path) -> None:
    store.put_new("good.mp4", b"x")
    os.mkfifo(tmp_path / "store" / "pipe.mp4")
    (tmp_path / "store" / "link.mp4").symlink_to("good.mp4")
    (tmp_path / "store" / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    keys = [info.key for info in store.scan()]
    assert keys == ["caf\udce9.mp4", "good.mp4", "link.mp4", "pipe.mp4"]
    assert get(store, keys[0], max_bytes=1) == b"x"


def test_a_symlinked_folder_leads_nowhere(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    store.put_new("good", b"x")
    (tmp_path / "store" / "way").symlink_to(tmp_path / "outside")
    with pytest.raises(BadInput) as error:
        store.head("way/secret")
    assert code_of(error) is FailureCode.NOT_FOUND
    assert [info.key for info in store.scan("way/")] == []


def test_limits_hold_while_reading(store: LocalStore) -> None:
    store.put_new("key", b"x" * 1000)
    with pytest.raises(BadInput) as error:
        get(store, "key", max_bytes=999)
    assert code_of(error) is FailureCode.TOO_MANY_BYTES


def test_another_object_under_the_same_key_is_noticed(store: LocalStore, tmp_path: Path) -> None:
    store.put_new("key", b"old")
    etag = store.head("key").etag
    (tmp_path / "store" / "key").write_bytes(b"newer")
    for read in (
        lambda: get(store, "key", max_bytes=100, etag=etag),
        lambda: store.get_range("key", start=0, stop=1, etag=etag),
    ):
        with pytest.raises(BadInput) as error:
            read()
        assert code_of(error) is FailureCode.SOURCE_CHANGED


def test_a_file_that_grows_while_it_is_copied_is_noticed(store: LocalStore, tmp_path: Path) -> None:
    store.put_new("key", b"x" * 100)

    class Copy(io.BytesIO):
        def write(self, data) -> int:
            with (tmp_path / "store" / "key").open("ab") as file:
                file.write(b"more")
            return super().write(data)

    with pytest.raises(BadInput) as error:
        store.spool("key", Copy(), max_bytes=10_000)
    assert code_of(error) in (FailureCode.SOURCE_CHANGED, FailureCode.TOO_MANY_BYTES)


def test_listing_is_sorted_and_filtered_by_prefix(store: LocalStore) -> None:
    for key in ["b/2", "b/10", "a", "b/1/x", "bb", "c/d/e"]:
        store.put_new(key, b"")
    assert [info.key for info in store.scan()] == ["a", "b/1/x", "b/10", "b/2", "bb", "c/d/e"]
    assert [info.key for info in store.scan("b/")] == ["b/1/x", "b/10", "b/2"]
    assert [info.key for info in store.scan("b/1")] == ["b/1/x", "b/10"]
    assert list(LocalStore("/nonexistent/folder").scan()) == []


def test_deleting_twice_is_fine(store: LocalStore) -> None:
    store.put_new("a/key", b"x")
    store.delete("a/key")
    store.delete("a/key")
    assert find(store, "a/key") is None


LIMITED_PUT = """
import resource, sys, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from pipeline.store.local import LocalStore
LocalStore(sys.argv[1]).put_new("parts/part-00000.parquet", b"x" * 100_000)
"""


def test_a_put_the_disk_cannot_hold_leaves_nothing(store: LocalStore, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED_PUT, str(tmp_path / "store")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "StoreFull" in run.stderr
    assert list(store.scan()) == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, StoreDenied),
        (errno.EACCES, StoreDenied),
        (errno.EIO, Transient),
        (errno.EOPNOTSUPP, ConfigError),
    ],
)
def test_what_the_file_system_says_becomes_our_error(
    number: int, kind: type[Exception], store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(kind):
        store.put_new("key", b"data")
    monkeypatch.undo()
    assert list(store.scan()) == []
    assert store.put_new("key", b"data")


@pytest.mark.parametrize("place", ["/proc/place", "file", "file/place", "nothing", "x" * 300])
def test_where_no_folder_can_be_the_operator_has_to_name_another_place(
    place: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nothing").symlink_to("/proc/nothing")
    with pytest.raises(StoreDenied, match=place):
        LocalStore(str(tmp_path / place)).put_new("key", b"data")


def test_a_store_that_replaces_objects_is_refused() -> None:
    class Forgetful(MemoryStore):
        def put_new(self, key: str, data: bytes) -> bool:
            self.objects[key] = (data, self.now_s)
            return True

    with pytest.raises(ConfigError, match="create-only"):
        open_job(Forgetful(), SPEC, make_items(3))


def test_finding_that_out_leaves_nothing_but_the_job(store: LocalStore) -> None:
    for _ in range(2):
        plan = open_job(store, SPEC, make_items(3))
    assert {info.key for info in store.scan()} == {PLAN_KEY, plan.shards[0].key}


def test_an_object_is_moved_whatever_it_is(store: LocalStore) -> None:
    store.put_new("parts/a", b"data")
    os.mkfifo(os.path.join(store.uri, "parts/b"))
    for name in "ab":
        store.move(f"parts/{name}", f"aside/parts/{name}")
    assert [info.key for info in store.scan()] == ["aside/parts/a", "aside/parts/b"]
    assert find(store, "aside/parts/a") == b"data"
    with pytest.raises(StoreError):
        store.move("parts/a", "aside/again")


def failing(times: int):
    """A call that fails so often, and the list of its tries."""
    tries: list[int] = []

    def call() -> str:
        tries.append(len(tries))
        if len(tries) <= times:
            raise Transient("busy")
        return "done"

    return call, tries


def test_a_passing_fault_is_retried_with_growing_pauses() -> None:
    call, tries = failing(4)
    pauses: list[float] = []
    policy = RetryPolicy(attempts=5, base_s=1, max_pause_s=4, deadline_s=100)
    assert retry(call, policy, sleep=pauses.append) == "done"
    assert len(tries) == 5
    assert all(0 <= pause <= limit for pause, limit in zip(pauses, [1, 2, 4, 4], strict=True))


def test_retrying_ends_with_the_attempts_or_the_deadline() -> None:
    call, tries = failing(99)
    with pytest.raises(Transient):
        retry(call, RetryPolicy(attempts=3), sleep=lambda pause: None)
    assert len(tries) == 3
    now = iter(range(0, 1000, 10))
    with pytest.raises(Transient):
        retry(call, RetryPolicy(deadline_s=25), sleep=lambda _: None, clock=lambda: next(now))
    assert len(tries) == 6


def test_a_call_that_gets_somewhere_has_all_its_tries_and_time_again() -> None:
    """As a download that lasts longer than any patience with a store that is silent."""
    call, tries = failing(9)
    now = iter(range(0, 10_000, 20))
    policy = RetryPolicy(attempts=2, deadline_s=25)
    told: list[int] = []
    done = retry(
        call,
        policy,
        progress=lambda: len(tries),
        told=lambda error, number: told.append(number),
        sleep=lambda _: None,
        clock=lambda: next(now),
    )
    assert done == "done"
    assert told == [2] * 9
    with pytest.raises(Transient):
        retry(failing(9)[0], policy, sleep=lambda _: None, clock=lambda: next(now))


def test_what_is_not_transient_is_not_retried() -> None:
    tries = []

    def call() -> None:
        tries.append(1)
        raise StoreFull("full")

    with pytest.raises(StoreFull):
        retry(call, RetryPolicy(), sleep=lambda pause: None)
    assert len(tries) == 1


def test_folders_that_cannot_be_looked_into_are_told_and_the_rest_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "closed", "z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clip.mp4").write_bytes(b"video")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    told: list[tuple[str, str]] = []
    store = LocalStore(str(tmp_path), left_out=lambda *what: told.append(what))
    found = [info.key for info in store.scan() if info.key.endswith(".mp4")]
    assert found == ["a/clip.mp4", "z/clip.mp4"]
    assert told == [
        (f"{tmp_path}/closed", "the folder cannot be read (Permission denied)"),
        (f"{tmp_path}/link", "a link to a folder is not followed"),
    ]
    with pytest.raises(StoreDenied):  # of a job's own output nothing may be left out
        list(LocalStore(str(tmp_path)).scan())


def test_a_folder_that_is_deleted_while_it_is_listed_is_no_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clip.mp4").write_bytes(b"video")
    store = LocalStore(str(tmp_path))
    listing = store.scan()
    assert next(listing).key == "a/clip.mp4"
    children = store._children("b")
    shutil.rmtree(tmp_path / "b")
    assert list(listing) == []
    assert [*children] == ["b/clip.mp4"]
    assert list(store._children("b")) == []
