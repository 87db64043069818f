"""Jobs against a real S3 server: raced, refused, cut off, killed, and run again."""

import hashlib
import io
import itertools
import os
import random
import signal
import socketserver
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.lab.bench.s3_server import BUCKET, KEYS, S3Server
from pipeline.errors import BadInput, FailureCode, StoreDenied, StoreMissing, Transient, VidrayError
from pipeline.store.archive import Archive
from pipeline.store.commit import PART_PREFIX, missing_parts, part_index
from pipeline.store.fsck import fsck
from pipeline.store.items import Item
from pipeline.store.job_plan import CommitPoint, load_plan, open_job
from pipeline.store.objects import ObjectStore, find, get
from pipeline.store.open import open_store
from pipeline.store.retry import RetryPolicy, retry
from pipeline.store.s3 import S3Store
from pipeline.store.s3_config import S3Config
from pipeline.store.s3_keys import S3Keys
from pipeline.store.sources import SourceFilter, find_items
from tests.batch_driver import SPEC, make_items, planned_ids, run_job
from tests.fault_proxy import FaultProxy

NUM_ITEMS = 10  # in parts of 3
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def out() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def store(s3_server: S3Server, out: str) -> ObjectStore:
    return open_store(out, s3_server.config())


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    proxy = FaultProxy(s3_server.port)
    yield proxy
    proxy.close()


def visible_parts(store: ObjectStore) -> list[str]:
    """What a reader's glob over parts/*.parquet matches."""
    keys = [info.key for info in store.scan(PART_PREFIX)]
    return [key for key in keys if fnmatch(key, "parts/*.parquet")]


def read_ids(store: ObjectStore) -> list[str]:
    """Video ids as a reader finds them; fails on anything torn."""
    ids: list[str] = []
    for key in visible_parts(store):
        data = get(store, key, max_bytes=1 << 20)
        table = pq.read_table(pa.BufferReader(data))
        table.validate(full=True)
        ids += table["video_id"].to_pylist()
    return ids


def assert_complete(store: ObjectStore) -> None:
    assert read_ids(store) == planned_ids(store)
    assert len(set(read_ids(store))) == NUM_ITEMS
    report = fsck(store, now_s=0.0)
    assert report.is_sound
    assert report.is_finished
    assert report.num_rows == NUM_ITEMS


def test_objects_come_back_as_they_were_put_and_are_never_replaced(store: ObjectStore) -> None:
    data = bytes(range(256)) * 40
    assert store.put_new("a/b.bin", data)
    assert not store.put_new("a/b.bin", b"other")
    assert get(store, "a/b.bin", max_bytes=len(data)) == data
    assert store.get_range("a/b.bin", start=5, stop=9) == data[5:9]
    assert store.get_range("a/b.bin", start=len(data) - 2, stop=1 << 20) == data[-2:]
    info = store.head("a/b.bin")
    assert (info.size_bytes, info.etag) == (len(data), hashlib.md5(data).hexdigest())  # noqa: S324
    assert store.put_new("empty", b"")
    assert find(store, "empty") == b""
    store.delete("empty")
    store.delete("empty")
    assert find(store, "empty") is None
    store.move("a/b.bin", "aside/b.bin")
    assert find(store, "a/b.bin") is None
    assert find(store, "aside/b.bin") == data
    open_job(store, SPEC, make_items(3))
    open_job(store, SPEC, make_items(3))  # which puts the plan again, and is refused


def test_reading_fails_by_its_code(store: ObjectStore) -> None:
    store.put_new("key", b"x" * 1000)
    etag = store.head("key").etag
    cases = [
        (lambda: store.head("none"), FailureCode.NOT_FOUND),
        (lambda: get(store, "none", max_bytes=1), FailureCode.NOT_FOUND),
        (lambda: get(store, "../key", max_bytes=1), FailureCode.NOT_FOUND),
        (lambda: get(store, "key", max_bytes=999), FailureCode.TOO_MANY_BYTES),
        (lambda: get(store, "key", max_bytes=1000, etag="e"), FailureCode.SOURCE_CHANGED),
        (lambda: store.get_range("key", start=0, stop=1, etag="e"), FailureCode.SOURCE_CHANGED),
        (lambda: store.get_range("key", start=2000, stop=2001), FailureCode.EMPTY_FILE),
    ]
    for read, code in cases:
        with pytest.raises(BadInput) as error:
            read()
        assert error.value.code is code
    assert len(get(store, "key", max_bytes=1000, etag=etag)) == 1000


def test_odd_keys_are_only_keys(store: ObjectStore) -> None:
    keys = ["caf\u00e9", "cafe\u0301", "-i", "concat:a|b", "a b+c%20?&=#.mp4", "🎬", "new\nline"]
    for key in keys:
        assert store.put_new(key, key.encode())
    assert {info.key for info in store.scan()} == set(keys)
    assert all(find(store, key) == key.encode() for key in keys)


@pytest.mark.parametrize("key", ["a//b", "a/./b", "/a", "a/.", "./a", "a///b/./c.mp4"])
def test_a_key_that_is_no_path_is_asked_for_as_it_is(key: str, s3_server: S3Server) -> None:
    """urllib3 would resolve it, and a server that keeps folders may; S3 does not."""
    asked: list[bytes] = []

    class Recorder(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline())
            self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        store = S3Store(BUCKET, "", s3_server.config(endpoint=endpoint))
        with pytest.raises(BadInput):
            store.spool(key, io.BytesIO(), max_bytes=1)
        with pytest.raises(VidrayError):
            store.put_new(key, b"x")
        server.shutdown()
        thread.join()
    paths = [unquote(line.split(b" ")[1].decode().partition("?")[0]) for line in asked]
    assert paths == [f"/{BUCKET}/{key}"] * 2


def test_listing_goes_on_beyond_one_page_sorted_and_under_its_prefix(
    store: ObjectStore, out: str, s3_server: S3Server
) -> None:
    keys = [f"clips/{index:05d}.mp4" for index in range(1203)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda key: store.put_new(key, b"v"), keys))
    store.put_new("clips2/other.mp4", b"v")
    assert [info.key for info in store.scan("clips/")] == keys
    items = list(find_items(f"{out}/clips", s3=s3_server.config()))
    assert [item.uri for item in items] == [f"{out}/{key}" for key in keys]
    some = find_items(f"{out}/**/*.mp4", SourceFilter(limit=5), s3=s3_server.config())
    assert [item.etag for item in some] == [items[0].etag] * 5


def test_a_manifest_and_its_videos_may_stand_in_the_bucket(
    store: ObjectStore, out: str, s3_server: S3Server, tmp_path: Path
) -> None:
    store.put_new("lists/new.txt", b"../x.mp4\nsub/a.mp4\n")
    store.put_new("lists/sub/a.mp4", b"video")
    config = s3_server.config()
    climbing, item = find_items(f"{out}/lists/new.txt", s3=config)
    archive = Archive(s3=config, folder=str(tmp_path), max_bytes=5)
    with archive.open(item) as copy:
        assert Path(copy.path).read_bytes() == b"video"
        handles = [
            os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
        ]
        assert copy.path not in handles  # closed: readers may be on other machines
        assert copy.info.size_bytes == 5
    assert list(tmp_path.iterdir()) == []
    for bad in (climbing, replace(item, etag="other")):
        with pytest.raises(BadInput), archive.open(bad):
            pass


def test_of_sixteen_racing_puts_exactly_one_wins_and_its_bytes_stay(store: ObjectStore) -> None:
    barrier = threading.Barrier(16)

    def put(number: int, key: str) -> bool:
        barrier.wait(timeout=30)
        return store.put_new(key, bytes([number]) * 1000)

    with ThreadPoolExecutor(16) as pool:
        for key in [f"race/{index}" for index in range(5)]:
            won = list(pool.map(put, range(16), [key] * 16))
            assert won.count(True) == 1
            assert find(store, key) == bytes([won.index(True)]) * 1000


@pytest.mark.parametrize(
    ("change", "bucket", "kind"),
    [
        ({"AWS_ACCESS_KEY_ID": "nobody"}, BUCKET, StoreDenied),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, BUCKET, StoreDenied),
        ({}, "no-such-bucket", StoreMissing),
    ],
)
def test_a_store_that_cannot_be_used_says_so_at_once(
    s3_server: S3Server, change: dict[str, str], bucket: str, kind: type[Exception]
) -> None:
    store = S3Store(bucket, "x", replace(s3_server.config(), keys=S3Keys(KEYS | change)))
    for call in (
        lambda: store.put_new("key", b""),
        lambda: list(store.scan()),
        lambda: get(store, "key", max_bytes=1),
    ):
        with pytest.raises(kind):
            call()


def test_keys_that_are_written_anew_are_used_without_a_new_start(
    s3_server: S3Server, out: str, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    keys = S3Keys({"AWS_SHARED_CREDENTIALS_FILE": str(file)})

    def write(secret: str) -> None:
        key = KEYS["AWS_ACCESS_KEY_ID"]
        lines = ("[default]", f"aws_access_key_id = {key}", f"aws_secret_access_key = {secret}")
        file.write_text("\n".join(lines))

    write("of the session before")
    store = open_store(out, replace(s3_server.config(), keys=keys))
    with pytest.raises(StoreDenied, match="with the keys of profile 'default': PutObject"):
        store.put_new("key", b"data")
    write(KEYS["AWS_SECRET_ACCESS_KEY"])
    assert store.put_new("key", b"data")


def impatient(
    server: S3Server, proxy: FaultProxy, *, attempts: int = 4, **changes: object
) -> S3Config:
    """Few tries in quick succession; each waits for its answer as long as a busy disk may take."""
    policy = RetryPolicy(attempts=attempts, base_s=0.001, max_pause_s=0.01)
    return replace(server.config(endpoint=proxy.endpoint, retry=policy), **changes)


def heedless(fault: str) -> dict[str, Any]:
    """Of an answer that never comes. A server that is busy for long may miss several tries."""
    return {"read_timeout_s": 1.0, "attempts": 60} if fault == "hang" else {}


PASSING = ["refuse", "html", "reset", "hang", "drop_answer", "fail_after"]


@pytest.mark.parametrize("fault", [*PASSING, "cut_upload"])
def test_a_put_survives_faults_and_lands_once(
    fault, s3_server: S3Server, proxy: FaultProxy, out: str, store: ObjectStore
) -> None:
    hurt = open_store(out, impatient(s3_server, proxy, **heedless(fault)))
    proxy.inject(fault, method="PUT", times=2)
    is_new = hurt.put_new("key", b"x" * 100_000)
    assert proxy.done[fault] >= 1
    # Applied, and the answer lost: the retry meets its own object. The footer tells (test below).
    assert is_new is (fault not in ("hang", "drop_answer", "fail_after"))
    assert find(store, "key") == b"x" * 100_000


@pytest.mark.parametrize("fault", [*PASSING, "cut"])
def test_reads_and_listings_survive_faults(
    fault, s3_server: S3Server, proxy: FaultProxy, out: str, store: ObjectStore
) -> None:
    data = os.urandom(50_000)
    store.put_new("key", data)
    hurt = open_store(out, impatient(s3_server, proxy, **heedless(fault)))
    for read, expected in [
        (lambda: get(hurt, "key", max_bytes=50_000), data),
        (lambda: hurt.get_range("key", start=10, stop=40_000), data[10:40_000]),
        (lambda: [info.key for info in hurt.scan()], ["key"]),
    ]:
        proxy.inject(fault, method="GET")
        assert read() == expected
    assert proxy.done[fault] == 3


def test_a_broken_download_goes_on_where_it_stopped(
    s3_server: S3Server, proxy: FaultProxy, out: str, store: ObjectStore
) -> None:
    data = os.urandom(1 << 20)
    store.put_new("key", data)
    writes: list[int] = []

    class Copy(io.BytesIO):
        def write(self, block) -> int:
            writes.append(len(block))
            return super().write(block)

    proxy.inject("cut", method="GET", times=3)
    copy = Copy()
    open_store(out, impatient(s3_server, proxy)).spool("key", copy, max_bytes=1 << 20)
    assert proxy.done["cut"] == 3
    assert copy.getvalue() == data
    assert sum(writes) == len(data)  # no byte came twice


def test_a_download_may_last_longer_than_any_patience_as_long_as_it_gets_on(
    s3_server: S3Server,
    proxy: FaultProxy,
    out: str,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut more often than there are tries, by a clock on which each try takes all the time."""

    def clock() -> float:
        return 0.02 * proxy.done.total()

    monkeypatch.setattr("pipeline.store.s3.retry", partial(retry, clock=clock))
    data = os.urandom(1 << 20)
    store.put_new("key", data)
    base = impatient(s3_server, proxy, min_bytes_per_s=1)
    config = replace(base, retry=RetryPolicy(attempts=2, deadline_s=0.01, base_s=0.001))
    proxy.inject("cut", method="GET", times=12)
    assert get(open_store(out, config), "key", max_bytes=1 << 20) == data
    assert proxy.done["cut"] == 12
    proxy.inject("reset", method="GET", times=3)
    with pytest.raises(Transient):
        get(open_store(out, config), "key", max_bytes=1 << 20)


def test_a_trickle_is_given_up_in_time(
    s3_server: S3Server, proxy: FaultProxy, out: str, store: ObjectStore
) -> None:
    store.put_new("key", b"x" * 5_000)  # 25 s at this pace
    pace = {"read_timeout_s": 1.0, "min_bytes_per_s": 100_000, "attempts": 60}
    hurt = open_store(out, impatient(s3_server, proxy, **pace))
    proxy.inject("trickle", method="GET")
    assert get(hurt, "key", max_bytes=5_000) == b"x" * 5_000
    assert proxy.done["trickle"] == 1


def test_a_store_that_stays_down_ends_in_transient_not_in_a_hang(
    s3_server: S3Server, proxy: FaultProxy, out: str
) -> None:
    proxy.inject("refuse", method="PUT", times=99)
    with pytest.raises(Transient, match="503 SlowDown"):
        open_store(out, impatient(s3_server, proxy)).put_new("key", b"x")
    assert proxy.done["refuse"] == 4


def test_rows_whose_put_lost_its_answer_are_recognised_by_their_attempt(
    s3_server: S3Server, proxy: FaultProxy, out: str, store: ObjectStore
) -> None:
    proxy.inject("drop_answer", method="PUT", times=3)  # shard, plan, first part
    receipts = run_job(open_store(out, impatient(s3_server, proxy)), make_items(NUM_ITEMS))
    assert proxy.done["drop_answer"] == 3
    assert all(receipt.is_mine for receipt in receipts)
    assert_complete(store)


def test_a_revoked_key_stops_the_job_clearly_and_it_resumes(
    s3_server: S3Server, proxy: FaultProxy, out: str, store: ObjectStore
) -> None:
    def revoke(point: CommitPoint) -> None:
        if point is CommitPoint.PART_CHECKED and len(visible_parts(store)) == 2:
            proxy.inject("revoke", method="PUT")

    hurt = open_store(out, impatient(s3_server, proxy))
    with pytest.raises(StoreDenied, match="InvalidAccessKeyId"):
        run_job(hurt, make_items(NUM_ITEMS), checkpoint=revoke)
    assert missing_parts(store, load_plan(store)) == [2, 3]
    assert len(run_job(hurt, make_items(NUM_ITEMS))) == 2
    assert_complete(store)


def test_a_server_killed_mid_run_and_restarted_loses_nothing(tmp_path: Path, out: str) -> None:
    server = S3Server(tmp_path / "server")
    server.start()
    kills = itertools.count(1)
    restarts: list[threading.Thread] = []

    def kill(point: CommitPoint) -> None:
        if point in (CommitPoint.PLAN_READY, CommitPoint.PART_CHECKED) and next(kills) in (1, 3):
            for restart in restarts:  # it may answer before it is known to
                restart.join(timeout=60)
            server.kill()
            restarts.append(threading.Thread(target=server.start))
            restarts[-1].start()

    try:
        policy = RetryPolicy(attempts=200, deadline_s=60, max_pause_s=0.2)
        store = open_store(out, server.config(retry=policy))
        run_job(store, make_items(NUM_ITEMS), checkpoint=kill)
        assert len(restarts) == 2
        assert_complete(store)
    finally:
        for restart in restarts:
            restart.join(timeout=60)
        server.stop()


# Whole processes, on both kinds of store.


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, out: str) -> tuple[str, str, ObjectStore]:
    """Where a driver process writes: its uri, its endpoint, and our own look at it."""
    if request.param == "folder":
        return str(tmp_path / "out"), "-", open_store(str(tmp_path / "out"))
    server: S3Server = request.getfixturevalue("s3_server")
    return out, server.endpoint, open_store(out, server.config())


def start_driver(
    uri: str, endpoint: str, *end: str, num_items: int = NUM_ITEMS
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.batch_driver", uri, endpoint, str(num_items), *end]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**KEYS, "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def let_pass(driver: subprocess.Popen[str], count: int = 1) -> None:
    """One that waits, so many times more."""
    assert driver.stdin is not None
    with suppress(BrokenPipeError):  # it has ended
        driver.stdin.write("\n" * count)
        driver.stdin.flush()


def finish_driver(driver: subprocess.Popen[str]) -> tuple[int, int]:
    """Parts made, and how many of them were its own."""
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 0
    made, own = output.split()
    return int(made), int(own)


@pytest.mark.parametrize("point", CommitPoint)
def test_a_driver_killed_at_any_point_is_finished_by_running_it_again(
    point: CommitPoint, place: tuple[str, str, ObjectStore]
) -> None:
    uri, endpoint, store = place
    count = "2" if point.startswith("part_") else "1"
    driver = start_driver(uri, endpoint, point, count)
    driver.communicate(timeout=60)
    assert driver.returncode == -signal.SIGKILL
    to_do = 4 - len(visible_parts(store))
    assert finish_driver(start_driver(uri, endpoint)) == (to_do, to_do)
    assert_complete(store)


def test_a_driver_killed_at_random_moments_still_makes_every_row_once(
    place: tuple[str, str, ObjectStore],
) -> None:
    uri, endpoint, store = place
    chance = random.Random(0)
    for _ in range(3):
        driver = start_driver(uri, endpoint, "wait", CommitPoint.PART_STARTED, num_items=120)
        more = chance.randrange(1, 8)
        enough = len(visible_parts(store)) + more
        let_pass(driver, more + 3)  # so that it has not ended, however late it is killed
        while len(visible_parts(store)) < enough:
            assert driver.poll() is None  # each look is a listing
        driver.kill()
        driver.communicate(timeout=60)
        assert driver.returncode == -signal.SIGKILL
    finish_driver(start_driver(uri, endpoint, num_items=120))
    assert read_ids(store) == planned_ids(store)
    assert len(set(read_ids(store))) == 120
    assert fsck(store, now_s=0.0).is_sound


def test_two_drivers_on_one_job_make_one_set_of_parts_and_readers_see_no_torn_row(
    place: tuple[str, str, ObjectStore],
) -> None:
    uri, endpoint, store = place
    drivers = [start_driver(uri, endpoint, "wait", ",".join(CommitPoint)) for _ in range(2)]
    num_looks = 0
    while any(driver.poll() is None for driver in drivers):
        ids = read_ids(store)
        assert len(set(ids)) == len(ids)
        num_looks += 1
        for driver in drivers:  # which comes to more than three points, whatever the other does
            let_pass(driver)
    made = [finish_driver(driver) for driver in drivers]
    assert sum(own for _, own in made) == 4
    assert num_looks > 3
    assert_complete(store)


def test_every_visible_part_is_whole_while_a_job_runs(store: ObjectStore) -> None:
    looks: list[int] = []

    def look(point: CommitPoint) -> None:
        plan = load_plan(store)
        for key in visible_parts(store):
            index = part_index(key)
            assert plan is not None
            assert index is not None
            data = get(store, key, max_bytes=1 << 20)
            assert pq.read_metadata(pa.BufferReader(data)).num_rows == plan.num_rows(index)
            looks.append(index)

    run_job(store, make_items(NUM_ITEMS), checkpoint=look)
    assert set(looks) == {0, 1, 2, 3}


def test_a_video_replaced_in_the_bucket_is_noticed(
    store: ObjectStore, out: str, s3_server: S3Server, tmp_path: Path
) -> None:
    store.put_new("clip.mp4", b"first video")
    (item,) = find_items(f"{out}/clip.mp4", s3=s3_server.config())
    assert isinstance(item, Item)
    store.delete("clip.mp4")
    store.put_new("clip.mp4", b"second one!")
    archive = Archive(s3=s3_server.config(), folder=str(tmp_path), max_bytes=100)
    with pytest.raises(BadInput) as error, archive.open(item):
        pass
    assert error.value.code is FailureCode.SOURCE_CHANGED
