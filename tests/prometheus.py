"""A real Prometheus that scrapes pages on this machine; where there is none, tests skip."""

import json
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from jobs.lab.free_ports import free_port

PROGRAM = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed")
DEADLINE_S = 60.0
STARTS, START_S, QUIT_S = 3, 30.0, 5.0
LOOK_S = 0.05
RANGE = "10s"  # of the boards' rates


class Prometheus:
    """Made by `prometheus`."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, query: str, *, instance: str = ".*") -> dict[tuple[str, ...], float]:
        """A board's query now: values by the values of its labels, in the order of their names."""
        query = query.replace("$__rate_interval", RANGE).replace("$instance", instance)
        body = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        return {
            tuple(series["metric"][name] for name in sorted(series["metric"])): float(
                series["value"][1]
            )
            for series in body["data"]["result"]
        }

    def is_ready(self) -> bool:
        try:
            return bool(self._get("/api/v1/query?query=up")["data"]["result"])
        except OSError:
            return False

    def _get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(self._address + path, timeout=DEADLINE_S) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is not ready
                raise
            raise AssertionError(error.read().decode()) from error  # the query is wrong


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """One that looks at these addresses, by their jobs' names, every second."""
    folder.mkdir()
    config = folder / "prometheus.yaml"
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [target]}]}
        for name, target in targets.items()
    ]
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    for _ in range(STARTS):
        with _started(config, folder) as found:
            if found is not None:
                yield found
                return
    pytest.fail(f"Prometheus did not start: {(folder / 'log').read_text()}")


@contextmanager
def _started(config: Path, folder: Path) -> Iterator[Prometheus | None]:
    """None if it says nothing for too long: it has been seen to hang before its first line. What
    each of its threads was at then ends its log.
    """
    port = free_port()
    with (folder / "log").open("ab") as log, TemporaryDirectory(dir=folder) as data:
        running = subprocess.Popen(
            [
                str(PROGRAM),
                f"--config.file={config}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            found = Prometheus(f"http://127.0.0.1:{port}")
            deadline_s = time.monotonic() + START_S
            while not (is_ready := found.is_ready()) and time.monotonic() < deadline_s:
                assert running.poll() is None, (folder / "log").read_text()
                time.sleep(LOOK_S)  # the core that this would take it wants to start on
            if not is_ready:
                running.send_signal(signal.SIGQUIT)
                with suppress(subprocess.TimeoutExpired):
                    running.wait(QUIT_S)
            yield found if is_ready else None
        finally:
            running.kill()
            running.wait()
