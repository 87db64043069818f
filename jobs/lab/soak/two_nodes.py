"""Two Ray nodes on this machine: a head, and one that can be lost, or sees fewer files."""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from jobs.lab.free_ports import free_port
from pipeline.config import MIB
from pipeline.errors import VidrayError

STORE_BYTES = 160 * MIB
CPUS = 2  # of each node
READY_S = 60.0
STARTED = "Ray runtime started"
HIDE = 'mount -t tmpfs none "$0" && exec "$@"'


class Nodes:
    """Made by two_nodes. environment: of whoever joins them."""

    def __init__(self, folder: Path, hidden: Path | None) -> None:
        self._folder = folder
        self._hidden = hidden
        self._ray = str(Path(sys.executable).with_name("ray"))
        self._port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start_head(self) -> None:
        self._start("head", "--head", f"--port={self._port}", "--include-dashboard=false",
                    f"--temp-dir={self._folder}")  # fmt: skip

    def start_other(self) -> None:
        """The node that may be lost; it does not see the hidden folder's files."""
        self._start("other", f"--address={self.address}")

    def lose_other(self) -> None:
        """At once and with all that runs there, as when a machine loses its power."""
        self._kill("other")

    def lose_head(self) -> None:
        """Likewise; it can be started again."""
        self._kill("head")

    def stop(self) -> None:
        for name in list(self._processes):
            self._kill(name)

    def _start(self, name: str, *options: str) -> None:
        """Returns when Ray says that all of the node runs."""
        command = [
            self._ray, "start", "--block", "--disable-usage-stats", f"--num-cpus={CPUS}",
            "--node-ip-address=127.0.0.1", f"--object-store-memory={STORE_BYTES}",
            f"--dashboard-agent-listen-port={free_port()}", *options,
        ]  # fmt: skip
        if name == "other" and self._hidden is not None:
            command = ["unshare", "--mount", "sh", "-c", HIDE, str(self._hidden), *command]
        said = self._folder / f"{name}.log"
        with said.open("wb") as log:
            node = self._processes[name] = subprocess.Popen(
                command, env=os.environ | self.environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + READY_S
        while STARTED not in said.read_text():
            if node.poll() is not None or time.monotonic() > deadline:
                raise VidrayError(f"Ray's {name} node does not start: {said.read_text()}")
            time.sleep(0.2)

    def _kill(self, name: str) -> None:
        node = self._processes.pop(name)
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(node.pid)
            for each in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        node.wait()


@contextmanager
def two_nodes(*, hidden: Path | None = None) -> Iterator[Nodes]:
    """Both running. hidden: a folder that the other one sees empty."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        nodes = Nodes(Path(folder), hidden)
        try:
            nodes.start_head()
            nodes.start_other()
            yield nodes
        finally:
            nodes.stop()


def may_hide() -> bool:
    """Whether this process may give another one a view of its own of the files."""
    test = ["unshare", "--mount", "sh", "-c", HIDE, "/mnt", "true"]
    with suppress(OSError):
        return subprocess.run(test, capture_output=True, check=False).returncode == 0
    return False
