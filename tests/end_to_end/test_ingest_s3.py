"""An archive in a real S3 server that grows for a day: every version of an object is a row once."""

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from urllib.parse import urlsplit
from uuid import uuid4

import minio
import pytest

from jobs.batch.job import Job
from jobs.ingest.batches import RealBatches
from jobs.ingest.hints import Hints
from jobs.ingest.tick import Ticker, TickPoint
from jobs.lab.bench.s3_server import ACCESS_KEY, BUCKET, KEYS, SECRET_KEY, S3Server
from pipeline.store.catalogue import Catalogue
from pipeline.store.commit import load_success
from pipeline.store.items import Item
from pipeline.store.objects import ObjectStore
from pipeline.store.open import open_store
from pipeline.store.passed_over import PassedOver
from pipeline.store.rows import read_rows
from tests.conftest import Vidray
from tests.ingest_ticks import FakeBatches, Killed, planned, schedule
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

NUM_SCHEDULERS = 4
T0 = 1_800_000_000


class SlowPut:
    """An object whose bytes have been coming for a while; it is there once the last one came."""

    def __init__(self, server: S3Server, store: ObjectStore, key: str, data: bytes) -> None:
        client = minio.Minio(
            endpoint=f"127.0.0.1:{server.port}", access_key=ACCESS_KEY, secret_key=SECRET_KEY,
            secure=False, region="us-east-1",
        )  # fmt: skip
        prefix = store.uri.removeprefix(f"s3://{BUCKET}/")
        url = urlsplit(client.get_presigned_url("PUT", BUCKET, f"{prefix}/{key}"))
        self._rest = data[len(data) // 2 :]
        self._connection = http.client.HTTPConnection(url.netloc, timeout=30)
        self._connection.putrequest("PUT", f"{url.path}?{url.query}")
        self._connection.putheader("Content-Length", str(len(data)))
        self._connection.endheaders(data[: len(data) // 2])

    def finish(self) -> None:
        self._connection.send(self._rest)
        answer = self._connection.getresponse()
        assert answer.status == 200, answer.read()
        self._connection.close()


@pytest.fixture
def place(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of its own, and the environment in which commands reach it."""
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": s3_server.endpoint}).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid4().hex}"


def test_a_day_of_arrivals_ends_with_every_version_once(
    s3_server: S3Server, place: str, tmp_path: Path, vidray: Vidray
) -> None:
    archive = open_store(f"{place}/in", s3_server.config())
    rows = open_store(f"{place}/rows", s3_server.config())
    clips = [make(tmp_path, Clip(num_frames=4 + each), f"{each}").read_bytes() for each in range(3)]
    model = write_folder(tmp_path / "tiny")
    file = tmp_path / "ingest.yaml"
    file.write_text(
        f"day: {{cron: '@yearly', source: '{archive.uri}', out: '{rows.uri}',"
        f" job: {{model: {model}, in-process: true, max-new-tokens: 2, quiet: true}}}}"
    )
    put: list[tuple[str, str]] = []

    def arrive(key: str, data: bytes) -> None:
        archive.delete(key)
        assert archive.put_new(key, data)
        put.append((f"{archive.uri}/{key}", archive.head(key).etag))

    def tick(*more: str) -> str:
        code, said, errors = vidray("ingest", "tick", "day", "--schedules", file, *more)
        assert code == 0, (said, errors)
        return said

    arrive("b.mp4", clips[0])
    arrive("c.mp4", clips[1])
    growing = SlowPut(s3_server, archive, "growing.mp4", clips[2])
    assert "2 new" in tick()

    arrive("c.mp4", clips[2])  # changed
    arrive("a-late.mp4", clips[0])  # sorts before what was taken, and nobody was told of it
    archive.delete("b.mp4")
    assert "1 new, 1 changed, 1 gone of 2 listed" in tick("--at", "2026-11-28T01:00Z")
    assert "somebody else has it, or had it" in tick("--at", "2026-11-28T01:00Z")

    assert Hints.load(file).give("day")  # forged: there is nothing
    assert "0 new, 0 changed" in tick()
    assert "nothing is due" in tick()

    growing.finish()
    put.append((f"{archive.uri}/growing.mp4", archive.head("growing.mp4").etag))
    assert Hints.load(file).give("day")
    assert "1 new" in tick()

    jobs = Catalogue(rows).jobs
    made = [(row["uri"], row["etag"]) for job in jobs for row in made_in(job)]
    assert Counter(made) == Counter(put)
    newest = {row["uri"]: row["etag"] for row in made_in(rows)}
    assert newest == dict(put)
    assert vidray("ingest", "status", "--schedules", file)[0] == 0


def made_in(store: ObjectStore) -> list[dict[str, str]]:
    return [row for table in read_rows(store) for row in table.to_pylist()]


@dataclass
class Arrivals:
    """Objects come, change and go as a seed has it; every version has bytes of its own."""

    archive: ObjectStore
    random: Random
    put: set[tuple[str, str]] = field(default_factory=set)
    there: dict[str, str] = field(default_factory=dict)  # etags by uri

    def write(self, key: str) -> None:
        self.remove(key)
        data = b"." * (len(self.put) + 1)  # longer than any before: a file that grows, too
        assert self.archive.put_new(key, data)
        uri, etag = f"{self.archive.uri}/{key}", self.archive.head(key).etag
        self.there[uri] = etag
        self.put.add((uri, etag))

    def remove(self, key: str) -> None:
        self.archive.delete(key)
        self.there.pop(f"{self.archive.uri}/{key}", None)

    def some(self, count: int) -> None:
        for _ in range(count):
            keys = [uri.rpartition("/")[2] for uri in sorted(self.there)]
            what = self.random.random()
            if what < 0.6 or not keys:
                self.write(f"{self.random.randrange(10**6):06d}.mp4")  # before or after others
            elif what < 0.85:
                self.write(self.random.choice(keys))
            else:
                self.remove(self.random.choice(keys))


class ListedBatches(FakeBatches):
    """Videos of the real archive."""

    def listed(self, job: Job, passed_over: PassedOver) -> Iterator[Item]:
        return RealBatches().listed(job, passed_over)


@pytest.mark.parametrize("seed", range(2))
def test_a_day_of_ticks_takes_every_version_that_stays_once(
    s3_server: S3Server, place: str, seed: int
) -> None:
    """By the hour, by two schedulers whose clocks differ, of which some die; objects come while a
    tick is under way, too, and one is written anew all the time for some hours.
    """
    random = Random(seed)
    rows = open_store(f"{place}/day", s3_server.config())
    arrivals = Arrivals(open_store(f"{place}/arrivals", s3_server.config()), random)
    stayed: set[tuple[str, str]] = set()
    for hour in range(26):
        is_last = hour >= 24  # nothing comes any more, and nobody dies
        now_s = T0 + 3600.0 * hour

        def tick(skew_s: float, dies: TickPoint | None, hour: int = hour, now_s: float = now_s):
            def checkpoint(here: TickPoint) -> None:
                if hour < 24:
                    arrivals.some(random.randrange(2))
                if 5 <= hour < 9:
                    arrivals.write("growing.mp4")
                if here is dies:
                    raise Killed

            ticker = Ticker(
                schedule=schedule(source=arrivals.archive.uri, max_active=9),
                store=rows,
                batches=ListedBatches(rows),
                now=lambda: now_s + 60 + skew_s,
                told=lambda text: None,
                checkpoint=checkpoint,
                by=f"{hour} {skew_s}",
            )
            with suppress(Killed):
                ticker.run()

        if not is_last:
            arrivals.some(random.randrange(6))
        for _ in range(random.randrange(3)):  # lost, forged, or twice the same
            Hints({"s": rows}, clock=lambda now_s=now_s: now_s).give("s")
        before = set(arrivals.there.items())
        dies = None if is_last or random.random() < 0.6 else random.choice(list(TickPoint))
        tick(0.0, dies)
        tick(random.choice([-600.0, 600.0]), None)
        if dies is None:
            stayed |= before & set(arrivals.there.items())

    taken = [(item.uri, item.etag) for job in Catalogue(rows).jobs for item in planned(job)]
    assert len(set(taken)) == len(taken) > 60
    assert stayed | set(arrivals.there.items()) <= set(taken) <= arrivals.put
    newest = dict(taken)
    assert {uri: newest[uri] for uri in arrivals.there} == arrivals.there
    assert all(load_success(job) is not None for job in Catalogue(rows).jobs)


def test_schedulers_that_race_take_every_version_once(s3_server: S3Server, place: str) -> None:
    """Each runs the same three ticks, in an order of its own, while videos come."""
    store = open_store(f"{place}/raced", s3_server.config())
    listing = {f"{number}.mp4": "1" for number in range(8)}
    barrier = threading.Barrier(NUM_SCHEDULERS)

    def race(number: int) -> None:
        batches = FakeBatches(store, listing, is_leaving=True)
        ticker = Ticker(
            schedule=schedule(max_active=9),
            store=store,
            batches=batches,
            now=lambda: T0 + 600.0 * (number - 1),  # clocks that are wrong
            told=lambda text: None,
            by=f"{number}",
        )
        barrier.wait(30)
        for step in range(3):
            listing[f"late-{number}-{step}.mp4"] = "1"
            ticker.run([T0 + 60 * ((number + step) % 3)])

    with ThreadPoolExecutor(NUM_SCHEDULERS) as pool:
        list(pool.map(race, range(NUM_SCHEDULERS)))
    Ticker(
        schedule=schedule(max_active=99),
        store=store,
        batches=FakeBatches(store, listing),
        now=lambda: T0 + 1e6,
        told=lambda text: None,
    ).run([T0 + 600])

    catalogue = Catalogue(store)
    assert catalogue.state.ticks == {T0, T0 + 60, T0 + 120, T0 + 600}
    taken = [item.uri.removeprefix("/clips/") for job in catalogue.jobs for item in planned(job)]
    assert Counter(taken) == Counter(listing.keys())
