"""Ports on loopback for servers of tests and benchmarks."""

import random
import socket

# The kernel takes ports from 32,768 on for outgoing connections, of which Ray alone has hundreds,
# and Ray's nodes take those below 20,000 for their workers.
PORTS = range(22_768, 30_000)
WITH_TWINS = range(20_000, 22_768)
TWIN = 10_000  # SeaweedFS also takes every port plus this

_given: set[int] = set()
_chance = random.SystemRandom()  # whatever seed a test sets


def free_port() -> int:
    """One that nobody has now, and that is given to nobody else in this process."""
    return _free(PORTS)


def free_ports_with_twins(count: int) -> list[int]:
    """Ports that are free and whose twins are."""
    return [_free(WITH_TWINS, TWIN) for _ in range(count)]


def _free(ports: range, *above: int) -> int:
    while True:
        port = _chance.choice(ports)
        if port not in _given and all(_is_free(port + more) for more in (0, *above)):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
