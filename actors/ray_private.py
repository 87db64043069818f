"""What vidray needs of Ray that Ray has no public name for: the only imports of ray._private.

Every name here is in Ray 2.52 and 2.60 alike; pyproject.toml holds Ray below the first version that
nobody has looked at. To raise that bound, find each name's callers in the new version, then run
tests/end_to_end/test_fleet.py and test_fleet_failures.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import ray_constants, utils
from ray._private.state import actors


def listen_on_loopback_only() -> None:
    """Let a Ray that this process starts listen on 127.0.0.1 and nowhere else.

    Ray turns 127.0.0.1 into the machine's own address unless it thinks that this platform has no
    clusters (ray._private.services); its servers then listen on every interface.
    """
    ray_constants.ENABLE_RAY_CLUSTER = False


@contextmanager
def minimal_agent() -> Iterator[None]:
    """Ray as it is where the extra packages of ray[default] are not installed.

    Its agent exports metrics and takes jobs; a node that cannot load it within 15 s, on a busy
    machine, does not start at all.
    """
    find_error = utils.get_dashboard_dependency_error
    utils.get_dashboard_dependency_error = lambda: ImportError("not wanted")
    try:
        yield
    finally:
        utils.get_dashboard_dependency_error = find_error


def life_of(actor: Any) -> int | None:
    """Which life of an actor that is up this is; None for one that is not, or if Ray can't tell."""
    try:
        facts: dict[str, Any] = actors(actor._actor_id.hex())  # noqa: SLF001 - no public call
    except Exception:  # noqa: BLE001 - of any kind, from Ray's own parts; the next look says more
        return None
    return facts["NumRestarts"] if facts.get("State") == "ALIVE" else None
