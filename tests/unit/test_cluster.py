"""A Ray that is there is found wherever it listens; one that is not is told of at once."""

import socket
from collections.abc import Iterator

import pytest
from ray._private import ray_constants

from actors.cluster import find_ray
from actors.ray_private import host_looked_at
from pipeline.errors import Transient


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform that has clusters: Ray takes loopback for the machine's own address."""
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    """A port on loopback where nobody listens, and nobody else can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def test_a_ray_that_listens_on_loopback_alone_is_looked_for_there(bound: socket.socket):
    bound.listen()
    find_ray(f"127.0.0.1:{bound.getsockname()[1]}")
    assert host_looked_at("127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_where_nobody_listens_it_is_said_at_once(host: str, bound: socket.socket):
    address = f"{host}:{bound.getsockname()[1]}"
    with pytest.raises(Transient, match=f"no Ray at {address}"):
        find_ray(address)
