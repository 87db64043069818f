"""What compose.yaml starts, started here: its own commands, on this machine's ports."""

import base64
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import minio
import pytest

from jobs.lab.free_ports import free_port, free_ports_with_twins
from tests.manifests import DEPLOY, documents
from tests.media_factory import CHUNKED, Clip, make

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
BIN = Path(sys.executable).parent
DEADLINE_S = 300.0
KEY = secrets.token_hex(24)
ASKED_FOR = {
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "AWS_ACCESS_KEY_ID": "vidray",
    "AWS_SECRET_ACCESS_KEY": secrets.token_hex(24),
    "VIDRAY_KEYS": f"ops:{sha256(KEY.encode()).hexdigest()}",
}
VARIABLE = re.compile(r"\$\{(\w+)(?::\?[^}]*)?\}")


def filled(text: str) -> str:
    """As compose fills in what it asks for."""
    return VARIABLE.sub(lambda match: ASKED_FOR[match[1]], text)


@contextmanager
def started(
    service: Mapping[str, Any], here: Mapping[str, str], *more: str, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A service's command and environment, with places of this machine instead of a container's."""

    def moved(text: str) -> str:
        for there, place in here.items():
            text = text.replace(there, place)
        return filled(text)

    words = [*service.get("entrypoint", []), *service["command"]]
    command = [*map(moved, words), *more]
    given = {name: moved(value) for name, value in service.get("environment", {}).items()}
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment | given,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def until(holds: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert process.poll() is None, log.read_text()[-2_000:]
        assert time.monotonic() < deadline_s, log.read_text()[-2_000:]
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5.0).status_code == 200
    except httpx2.TransportError:
        return False


def test_the_services_of_compose_come_up_together_and_answer(tmp_path: Path):
    (content,) = documents(DEPLOY / "compose.yaml")
    services = content["services"]
    gcs, jobs, web, metrics, ticks = (str(free_port()) for _ in range(5))
    s3, master, volume, filer, admin = map(str, free_ports_with_twins(5))
    keys = tmp_path / "s3.json"
    keys.write_text(filled(content["configs"]["s3"]["content"]))
    here = {
        "-dir=/data": f"-dir={tmp_path / 'storage'}",
        "/etc/vidray/ingest.yaml": str(tmp_path / "ingest.yaml"),
        "/data/uploads": str(tmp_path / "uploads"),
        "/etc/seaweedfs/s3.json": str(keys),
        "=storage": "=127.0.0.1",
        "//storage:8333": f"//127.0.0.1:{s3}",
        "=0.0.0.0": "=127.0.0.1",
        "port=8333": f"port={s3}",
        "6379": gcs,
        "port=8265": f"port={jobs}",
        "port=8080": f"port={metrics}",
        "--port=8000": f"--port={web}",
        ":9400": f":{ticks}",
    }
    (tmp_path / "storage").mkdir()
    with ExitStack() as stack:
        temporary = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        )
        roles = {"master": master, "volume": volume, "filer": filer, "admin": admin}
        ports = [f"-{role}.port={port}" for role, port in roles.items()]
        storage_log, ray_log, web_log = (
            tmp_path / f"{name}.log" for name in ("storage", "ray", "web")
        )
        storage = stack.enter_context(started(services["storage"], here, *ports, log=storage_log))
        ray = stack.enter_context(
            started(
                services["ray"],
                here,
                "--node-ip-address=127.0.0.1",
                f"--temp-dir={temporary}",
                f"--dashboard-agent-listen-port={free_port()}",
                f"--ray-client-server-port={free_port()}",
                f"--object-store-memory={200 << 20}",
                log=ray_log,
            )
        )
        until(lambda: answers(f"http://127.0.0.1:{jobs}/api/gcs_healthz"), ray, ray_log)
        # Without the token nobody gets at what takes jobs.
        assert httpx2.get(f"http://127.0.0.1:{jobs}/api/jobs/", timeout=DEADLINE_S).status_code in (
            401,
            403,
        )
        endpoint = stack.enter_context(started(services["endpoint"], here, log=web_log))
        until(lambda: answers(f"http://127.0.0.1:{web}/readyz"), endpoint, web_log)
        assert storage.poll() is None, storage_log.read_text()[-2_000:]
        assert (
            httpx2.get(f"http://127.0.0.1:{s3}/", timeout=DEADLINE_S).status_code == 403
        )  # a store with keys
        clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
        url = f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"
        body = {
            "model": "vidray-demo",
            "messages": [
                {"role": "user", "content": [{"type": "video_url", "video_url": {"url": url}}]}
            ],
        }
        chat = f"http://127.0.0.1:{web}/v1/chat/completions"
        assert httpx2.post(chat, json=body, timeout=DEADLINE_S).status_code == 401
        answer = httpx2.post(
            chat, json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=DEADLINE_S
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"]

        # A tick: what is new in the archive goes to the head as a batch, and becomes rows.
        archive = minio.Minio(
            endpoint=f"127.0.0.1:{s3}",
            access_key=ASKED_FOR["AWS_ACCESS_KEY_ID"],
            secret_key=ASKED_FOR["AWS_SECRET_ACCESS_KEY"],
            secure=False,
            region="us-east-1",
        )
        archive.make_bucket(bucket_name="archive")
        archive.fput_object(
            bucket_name="archive", object_name="clips/clip.mp4", file_path=str(clip)
        )
        schedules = (DEPLOY / "ingest.yaml").read_text("utf-8")
        soon = schedules.replace("@hourly", "* * * * *").replace("ray:8265", f"127.0.0.1:{jobs}")
        (tmp_path / "ingest.yaml").write_text(soon)
        ingest_log = tmp_path / "ingest.log"
        ingest = stack.enter_context(started(services["ingest"], here, log=ingest_log))
        if shutil.which("prometheus"):
            targets = {"ray:8000": web, "ray:8080": metrics, "ingest:9400": ticks}
            until_scraped(stack, services["prometheus"], tmp_path, targets)

        def is_done() -> bool:
            rows = archive.list_objects(bucket_name="archive", prefix="rows/jobs/", recursive=True)
            return any(each.object_name.endswith("/_SUCCESS.json") for each in rows)

        until(is_done, ingest, ingest_log)


def until_scraped(
    stack: ExitStack, service: Mapping[str, Any], folder: Path, targets: Mapping[str, str]
) -> None:
    """Prometheus, until everything that it is told of is there."""
    config = (DEPLOY / "prometheus" / "compose.yaml").read_text("utf-8")
    places = {there: f"127.0.0.1:{port}" for there, port in targets.items()} | {
        "/run/secrets/metrics_key": str(folder / "key"),
        "/etc/prometheus/rules": str(DEPLOY / "prometheus"),
        "15s": "2s",
    }
    for there, place in places.items():
        config = config.replace(there, place)
    (folder / "key").write_text(KEY)
    (folder / "prometheus.yaml").write_text(config)
    here = {
        "/etc/prometheus/prometheus.yaml": str(folder / "prometheus.yaml"),
        "path=/prometheus": f"path={folder / 'prometheus'}",
    }
    port, log = free_port(), folder / "prometheus.log"
    listen = f"--web.listen-address=127.0.0.1:{port}"
    prometheus = stack.enter_context(started(service, here, listen, log=log))

    def are_up() -> bool:
        try:
            answer = httpx2.get(f"http://127.0.0.1:{port}/api/v1/targets", timeout=5.0)
        except httpx2.TransportError:
            return False
        targets = answer.json()["data"]["activeTargets"] if answer.status_code == 200 else []
        return {each["labels"]["job"] for each in targets if each["health"] == "up"} == {
            "vidray",
            "ray",
            "ingest",
        }

    until(are_up, prometheus, log)
