"""A real S3 server of the dev extra: SeaweedFS on loopback, killed and restarted at will."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import minio
import urllib3

from jobs.lab.free_ports import free_ports_with_twins
from pipeline.store.retry import RetryPolicy
from pipeline.store.s3_config import S3Config
from pipeline.store.s3_keys import S3Keys

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret-key"  # noqa: S105 - of a server of our own
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
READER_KEYS = {"AWS_ACCESS_KEY_ID": "test-reader", "AWS_SECRET_ACCESS_KEY": "test-reader-key"}
BUCKET = "videos"
_ROLES = ("s3", "master", "volume", "filer", "admin")


class S3Server:
    """`weed mini` in a folder of its own; start() returns once a signed put succeeded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = dict(zip(_ROLES, free_ports_with_twins(len(_ROLES)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        identities = [
            _identity("app", KEYS, ["Admin", "Read", "List", "Tagging", "Write"]),
            _identity("reader", READER_KEYS, ["Read", "List"]),
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))

    @property
    def port(self) -> int:
        return self._ports["s3"]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(self, *, endpoint: str | None = None, retry: RetryPolicy | None = None) -> S3Config:
        return S3Config(
            endpoint=endpoint or self.endpoint,
            keys=S3Keys(KEYS),
            connect_timeout_s=5,
            read_timeout_s=15,
            retry=retry or RetryPolicy(deadline_s=60, max_pause_s=1),
        )

    def start(self) -> None:
        weed = Path(sys.executable).with_name("weed")
        ports = [f"-{role}.port={port}" for role, port in self._ports.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(weed), "mini", f"-dir={self._folder / 'data'}",
                    "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports,
                    f"-s3.config={self._folder / 's3.json'}",
                    "-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false",
                    "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false",
                    "-admin.ui=false", "-master.telemetry=false",
                ],
                stdout=log, stderr=log, cwd=self._folder,
                # A home of its own: it must neither read nor leave settings elsewhere.
                env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            )  # fmt: skip
        self._wait_until_ready(deadline=time.monotonic() + 60)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)

    def stop(self) -> None:
        """Whether it runs or not."""
        self.kill()

    def _wait_until_ready(self, *, deadline: float) -> None:
        http = urllib3.PoolManager(timeout=5, retries=False)
        client = minio.Minio(
            endpoint=f"127.0.0.1:{self.port}", access_key=ACCESS_KEY, secret_key=SECRET_KEY,
            secure=False, region="us-east-1", http_client=http,
        )  # fmt: skip
        while True:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text()[-2000:])
            try:
                if not client.bucket_exists(bucket_name=BUCKET):
                    client.make_bucket(bucket_name=BUCKET)
                client.put_object(
                    bucket_name=BUCKET, object_name="ready", data=io.BytesIO(b"1"), length=1
                )
                client.remove_object(bucket_name=BUCKET, object_name="ready")
                return
            except (minio.error.MinioException, urllib3.exceptions.HTTPError):
                if time.monotonic() > deadline:
                    raise RuntimeError("the S3 server did not become ready") from None
                time.sleep(0.05)


def _identity(name: str, keys: dict[str, str], actions: list[str]) -> dict[str, Any]:
    key, secret = keys.values()
    return {
        "name": name,
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": actions,
    }


def is_installed() -> bool:
    return shutil.which("weed", path=str(Path(sys.executable).parent)) is not None
