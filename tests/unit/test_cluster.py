"""A Ray that is there is found wherever it listens; one that is not is told of at once; one that is
told to end while it starts does so, and leaves nothing.
"""

import signal
import socket
import subprocess
from types import FrameType

import psutil
import pytest
from ray._private import ray_constants, services, utils

from actors.begun import nothing_left_behind
from actors.cluster import find_ray, start_local_ray
from actors.ray_private import host_looked_at
from pipeline.errors import Transient

DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform that has clusters: Ray takes loopback for the machine's own address."""
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)


def test_a_ray_that_listens_on_loopback_alone_is_looked_for_there(bound: socket.socket):
    bound.listen()
    find_ray(f"127.0.0.1:{bound.getsockname()[1]}")
    assert host_looked_at("127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_where_nobody_listens_it_is_said_at_once(host: str, bound: socket.socket):
    address = f"{host}:{bound.getsockname()[1]}"
    with pytest.raises(Transient, match=f"no Ray at {address}"):
        find_ray(address)


def test_what_a_start_that_is_cut_short_has_begun_ends_with_all_that_it_began() -> None:
    family: list[psutil.Process] = []
    with pytest.raises(KeyboardInterrupt), nothing_left_behind():  # noqa: PT012
        started = services.start_ray_process(
            ["sh", "-c", "sleep 1000 & echo; wait"], "raylet", False, stdout_file=subprocess.PIPE
        )
        assert started.process.stdout.readline() == b"\n"  # the other is there
        raylet = psutil.Process(started.process.pid)
        family = [raylet, *raylet.children()]
        raise KeyboardInterrupt
    started.process.stdout.close()
    assert len(family) == 2
    assert not psutil.wait_procs(family, timeout=DEADLINE_S)[1]


def test_what_a_whole_start_has_begun_stays() -> None:
    with nothing_left_behind():
        started = services.start_ray_process(
            ["sh", "-c", "read line"], "raylet", False, pipe_stdin=True
        )
    assert started.process.poll() is None
    started.process.communicate(b"\n", timeout=DEADLINE_S)


def test_sigterm_means_while_ray_starts_what_it_meant_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray's own idea of it ends the process with code 15."""

    def init(**settings: object) -> None:
        utils.set_sigterm_handler(signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    def hear(number: int, frame: FrameType | None) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, hear)
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("actors.cluster.LEAN_RAYLET", {})  # the process is others' too
    try:
        with pytest.raises(SystemExit, match="143"):
            start_local_ray(object_store_bytes=1)
    finally:
        signal.signal(signal.SIGTERM, before)
