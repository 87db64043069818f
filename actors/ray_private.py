"""What vidray needs of Ray that Ray has no public name for: the only imports of ray._private.

Every name here is in Ray 2.52 and 2.60 alike; pyproject.toml holds Ray below the first version that
nobody has looked at. To raise that bound, find each name's callers in the new version, then run
tests/end_to_end/test_fleet.py and test_fleet_failures.py.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ray._private import ray_constants, services, utils
from ray._private.node import Node
from ray._private.state import actors


def listen_on_loopback_only() -> None:
    """Let a Ray that this process starts listen on 127.0.0.1 and nowhere else.

    Ray turns 127.0.0.1 into the machine's own address unless it thinks that this platform has no
    clusters (ray._private.services); its servers then listen on every interface.
    """
    ray_constants.ENABLE_RAY_CLUSTER = False


def host_looked_at(host: str) -> str:
    """Where Ray looks for a cluster at this host: its own address for any name of loopback."""
    return str(services.resolve_ip_for_localhost(host))


@contextmanager
def bare_node() -> Iterator[None]:
    """Let a Ray that starts meanwhile have the processes that actors need, and no others.

    Left out are its dashboard, its autoscaler, what brings logs to a driver, and all of its agent
    but what ray without [default] has: a node that cannot load the rest within 15 s, on a busy
    machine, does not start at all. Metrics are exported by that rest.
    """
    with ExitStack() as stack:
        for owner, name, bare in (
            (utils, "get_dashboard_dependency_error", lambda: ImportError("not wanted")),
            (Node, "start_api_server", lambda self, **options: None),
            (Node, "start_monitor", lambda self: None),
            (Node, "start_log_monitor", lambda self: None),
        ):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, bare)
        yield


@contextmanager
def no_handler_of_its_own() -> Iterator[None]:
    """Let SIGTERM mean what it meant before while Ray starts: a Ray that is told to end by it ends
    the process with code 15.
    """
    set_handler = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler


@contextmanager
def named(entry_point: str) -> Iterator[None]:
    """Let a Ray that is joined meanwhile know this process by this name, and not by its command
    line: names of files stand in that, which Ray cannot take where they are not UTF-8.
    """
    name_of = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: entry_point
    try:
        yield
    finally:
        utils.get_entrypoint_name = name_of


@contextmanager
def begun_by_ray() -> Iterator[list[int]]:
    """The ids of the processes that Ray begins here meanwhile."""
    begun: list[int] = []
    begin = services.start_ray_process

    def begin_noted(*arguments: Any, **options: Any) -> Any:
        started = begin(*arguments, **options)
        begun.append(started.process.pid)
        return started

    services.start_ray_process = begin_noted
    try:
        yield begun
    finally:
        services.start_ray_process = begin


def life_of(actor: Any) -> int | None:
    """Which life of an actor that is up this is; None for one that is not, or if Ray can't tell.

    It may never return while a cluster ends: call it in a thread that nobody waits for.
    """
    try:
        facts: dict[str, Any] = actors(actor._actor_id.hex())  # noqa: SLF001 - no public call
    except Exception:  # noqa: BLE001 - of any kind, from Ray's own parts; the next look says more
        return None
    return facts["NumRestarts"] if facts.get("State") == "ALIVE" else None
