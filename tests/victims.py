"""Processes of a running fleet that a test may harm, by what they are: how to find their ids."""

import time
from collections.abc import Callable

import psutil
import ray

from actors.fleet import Fleet

VICTIMS: dict[str, Callable[[Fleet], int]] = {
    "reader": lambda fleet: ray.get(fleet.pools.readers[0].process_id.remote()),
    "encoder": lambda fleet: ray.get(fleet.pools.encoders[0].process_id.remote()),
    "first rank": lambda fleet: ray.get(fleet.pools.decoders[0].process_ids.remote())[0],
    "second rank": lambda fleet: ray.get(fleet.pools.decoders[0].process_ids.remote())[1],
    "stream host": lambda fleet: ray.get(fleet.hosts[0].process_id.remote()),
}

DEADLINE_S = 120.0  # far beyond what anything takes, on a busy machine too


def is_gone(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(is_so: Callable[[], bool], *, patience_s: float = DEADLINE_S) -> None:
    deadline_s = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def until_gone(process_id: int, *, patience_s: float = DEADLINE_S) -> None:
    """Whoever was killed may take a moment to end."""
    until(lambda: is_gone(process_id), patience_s=patience_s)
