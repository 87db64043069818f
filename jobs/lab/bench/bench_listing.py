"""Listing and planning archives of many keys: the real S3 client, sources and plan.

A million keys come from a server that makes its listing up, ten thousand from a real S3 server
(SeaweedFS, of the dev extra). Every figure is of a fresh process.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jobs.lab.bench.key_server import key_server
from jobs.lab.bench.measure import Row
from jobs.lab.bench.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, is_installed
from pipeline.config import MIB
from pipeline.store.objects import ObjectStore
from pipeline.store.open import open_store

NUM_KEYS = 1_000_000
NUM_STORED = 10_000
NUM_UPLOADS = 8  # at a time

_PLAN = """
import os, resource, sys, time
from pipeline.store.open import open_store
from pipeline.store.job_plan import JobSpec, open_job
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import find_items
uri, out = sys.argv[1:]
start = time.perf_counter()
spec = JobSpec(source=uri, model_digest="bench", config="{}")
items = find_items(uri, s3=S3Config.from_environment(os.environ))
plan = open_job(open_store(out), spec, items)
seconds = time.perf_counter() - start
print(plan.num_items, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_LIST = """
import os, resource, sys, time
from urllib.parse import urlsplit
import minio
uri, _ = sys.argv[1:]
client = minio.Minio(
    endpoint=urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc, secure=False, region="us-east-1",
    access_key=os.environ["AWS_ACCESS_KEY_ID"], secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
)
start = time.perf_counter()
count = sum(1 for _ in client.list_objects(urlsplit(uri).netloc, recursive=True))
seconds = time.perf_counter() - start
print(count, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@dataclass(frozen=True, slots=True)
class _Cost:
    seconds: float
    peak_bytes: int


def rows(folder: Path, *, num_keys: int = NUM_KEYS, num_stored: int = NUM_STORED) -> Iterator[Row]:
    """Yield the table's rows; without SeaweedFS only those of the generated listing."""
    with key_server(num_keys // 10) as endpoint:
        few = _measure(_PLAN, folder, endpoint, num_keys // 10)
    with key_server(num_keys) as endpoint:
        many = _measure(_PLAN, folder, endpoint, num_keys)
        yield _time(num_keys, many, _measure(_LIST, folder, endpoint, num_keys))
    yield Row(
        what=f"peak memory of planning {num_keys:,} keys",
        vidray=f"{many.peak_bytes / MIB:,.0f} MiB",
        peer=f"{num_keys // 10:,} keys {few.peak_bytes / MIB:,.0f} MiB",
        ratio=many.peak_bytes / few.peak_bytes,
        target=1.25,
        at_most=True,
    )
    if is_installed():
        yield _stored(folder, num_stored)


def _stored(folder: Path, num_stored: int) -> Row:
    home = folder / "s3-server"
    shutil.rmtree(home, ignore_errors=True)
    server = S3Server(home)
    try:
        server.start()
        _fill(open_store(f"s3://{BUCKET}", server.config()), num_stored)
        ours = _measure(_PLAN, folder, server.endpoint, num_stored)
        return _time(num_stored, ours, _measure(_LIST, folder, server.endpoint, num_stored), "real")
    finally:
        server.stop()


def _fill(store: ObjectStore, num_keys: int) -> None:
    with ThreadPoolExecutor(NUM_UPLOADS) as threads:
        keys = (f"clips/{number:07d}.mp4" for number in range(num_keys))
        for _ in threads.map(lambda key: store.put_new(key, b"a video"), keys):
            pass


def _time(num_keys: int, ours: _Cost, bare: _Cost, kind: str = "generated") -> Row:
    return Row(
        what=f"listing and planning {num_keys:,} {kind} keys",
        vidray=f"{ours.seconds:.1f} s",
        peer=f"minio's listing alone {bare.seconds:.1f} s",
        ratio=bare.seconds / ours.seconds,
        target=0.5,
    )


def _measure(script: str, folder: Path, endpoint: str, num_keys: int) -> _Cost:
    out = folder / "listing-out"
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-c", script, f"s3://{BUCKET}", str(out)],
        env=os.environ | _reaching(endpoint),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    count, seconds, peak_kib = done.stdout.split()
    if int(count) != num_keys:
        raise RuntimeError(f"{count} keys of {num_keys}: not comparable")
    return _Cost(float(seconds), int(peak_kib) * 1024)


def _reaching(endpoint: str) -> Mapping[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
