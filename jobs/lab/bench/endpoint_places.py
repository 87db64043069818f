"""Where an endpoint is measured: plain under uvicorn, and under Ray Serve behind either proxy."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import psutil

from jobs.lab.free_ports import free_port

PLAIN, HAPROXY, DEFAULT = "plain uvicorn", "Ray Serve, HAProxy", "Ray Serve, its default proxy"
PLACES = (PLAIN, HAPROXY, DEFAULT)
SERVE = ("jobs.cli", "serve", "--port", "0", "--key-requests", "1000000", "--key-answers", "256")
STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs, in a process with children."""

    address: str
    process: "subprocess.Popen[str]"

    @property
    def family(self) -> list[psutil.Process]:
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def num_held(self) -> int:
        """Videos that a decoder keeps keys and values of (endpoint_process.py)."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("it has no pipes")
        print("held", file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@contextmanager
def served_at(
    place: str,
    what: Literal["endpoint", "clock"],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """vidray's endpoint with the bundled model, or what only says the time; its files in folder."""
    with TemporaryDirectory(prefix="vidray-haproxy-") as own:
        way = "plain" if place == PLAIN else "serve"
        proxy = _haproxy(Path(own)) | {
            "RAY_SERVE_ENABLE_HA_PROXY": str(int(place == HAPROXY)),
            "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # as the deployments have it
        }
        command = ["jobs.lab.bench.endpoint_process", way, what, str(folder)]
        with answering(command, proxy | dict(environment or {})) as served:
            yield served


@contextmanager
def answering(
    module: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """A server from the moment it says ` answers at `; it ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-m", *module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        try:
            said = next((line for line in process.stdout or () if " answers at " in line), "")
            if not said:
                raise RuntimeError(f"{' '.join(module)} did not start")
            yield Served(said.partition(" answers at ")[2].split()[0].rstrip("/"), process)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            if module[0] == SERVE[0]:
                process.terminate()
            process.wait(STOP_S)


def _haproxy(folder: Path) -> dict[str, str]:
    """What tells one HAProxy of Ray's from another on the same machine."""
    names = {
        "STATS_PORT": str(free_port()),
        "METRICS_PORT": str(free_port()),
        "CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "SOCKET_PATH": str(folder / "admin.sock"),
        "SERVER_STATE_BASE": str(folder),
        "SERVER_STATE_FILE": str(folder / "server-state"),
    }
    return {f"RAY_SERVE_HAPROXY_{name}": value for name, value in names.items()}
