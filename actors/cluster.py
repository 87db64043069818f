"""The Ray that actors live on: a cluster that is there, or one of this process's own."""

import logging
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import ray

from actors.begun import nothing_left_behind
from actors.profile import Profile
from actors.ray_private import (
    bare_node,
    host_looked_at,
    listen_on_loopback_only,
    named,
    no_handler_of_its_own,
)
from pipeline.errors import Transient

CONNECT_TIMEOUT_S = 5.0
# Ray keeps what became of the last 100,000 calls for a dashboard that is not there.
NO_TASK_EVENTS = {"task_events_report_interval_ms": 0}
# Of all actors alike, so that they can give way to each other by steps (precedence.py).
SAME_NICENESS = {"worker_niceness": 0}

# The raylet runs on jemalloc, which keeps what was freed for later. Here it gives it back at once,
# or its memory grows by a sixth over a thousand clips. What a user has set stays.
LEAN_RAYLET = {
    "RAY_JEMALLOC_PROFILE": "raylet",
    "RAY_JEMALLOC_CONF": "narenas:1,tcache:false,dirty_decay_ms:0,muzzy_decay_ms:0",
}


@contextmanager
def connected(profile: Profile, *, address: str | None, exports_metrics: bool) -> Iterator[None]:
    """A connection to Ray; one that was there before is used and left alone.

    address: of a running cluster; without it Ray starts here, and stops at the end.
    errors: Transient if Ray does not start or is not there
    """
    if ray.is_initialized():
        yield
        return
    if address:
        find_ray(address)
        _connect(address=address)
    else:
        start_local_ray(
            object_store_bytes=profile.object_store_bytes,
            num_cpus=profile.num_cpus,
            exports_metrics=exports_metrics,
        )
    try:
        yield
    finally:
        ray.shutdown()


def node_resources() -> list[dict[str, float]]:
    """What every node of the cluster has, taken or not."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def start_local_ray(
    *, object_store_bytes: int, num_cpus: float | None = None, exports_metrics: bool = False
) -> None:
    """Start Ray for this process alone, every port on loopback.

    num_cpus: what actors may ask for, whatever the machine has; its own number if not given.
    """
    listen_on_loopback_only()
    for name, value in LEAN_RAYLET.items():
        os.environ.setdefault(name, value)
    with nullcontext() if exports_metrics else bare_node():
        _connect(
            address="local",
            num_cpus=None if num_cpus is None else math.ceil(num_cpus),
            include_dashboard=False,
            object_store_memory=object_store_bytes,
            _system_config=NO_TASK_EVENTS | SAME_NICENESS,
        )


def find_ray(address: str) -> None:
    """Let Ray look where it listens, also on loopback alone; Transient if nobody does: Ray itself
    would try for minutes.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    looked_at = host_looked_at(host)
    failure = _failure_at(looked_at, int(port))
    if failure is None:
        return
    if looked_at == host:
        raise Transient(f"no Ray at {address}: {failure}")
    if _failure_at(host, int(port)) is not None:
        raise Transient(f"no Ray at {address}, nor at {looked_at}, where Ray looks: {failure}")
    listen_on_loopback_only()


def _failure_at(host: str, port: int) -> str | None:
    """Why nobody answers there."""
    try:
        socket.create_connection((host.strip("[]"), port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _connect(**settings: Any) -> None:
    """ray.init without its chatter, and without its own idea of what SIGTERM means.

    Transient if Ray does not start or is not there.
    """
    try:
        with no_handler_of_its_own(), named("vidray"), nothing_left_behind():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
    except Exception as error:  # noqa: BLE001 - Ray raises Exception itself when it starts slowly
        reason = str(error).strip().partition("\n")[0]
        raise Transient(f"no Ray at {settings['address']}: {reason}") from error
