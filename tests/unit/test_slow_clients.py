"""Clients that take their time cost nobody else's: each is refused, or hung up on, in time."""

import json
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jobs.serve import connection
from tests.endpoint import TIMEOUT_S, bare_endpoint

pytestmark = pytest.mark.timeout(60)
BODY = b"POST /v1/files HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000\r\n"
FORM = (
    b"content-type: multipart/form-data; boundary=x\r\n\r\n"
    b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
)
MOMENT_S = 0.05


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setattr(connection, "HEADERS_S", 0.5)
    with bare_endpoint(tmp_path, body_s=0.5) as address:
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as client:
            yield client


def trickle(client: socket.socket, piece: bytes) -> bytes:
    """Again and again a piece, until there is an answer: all of it."""
    while not select.select([client], [], [], MOMENT_S)[0]:
        client.sendall(piece)
    return rest(client)


def rest(client: socket.socket) -> bytes:
    said = b""
    with suppress(ConnectionResetError):  # of a piece that came after the end
        while data := client.recv(1 << 16):
            said += data
    return said


def refusal(said: bytes) -> dict[str, Any]:
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    error: dict[str, Any] = json.loads(body)["error"]
    return error


def test_who_says_nothing_is_hung_up_on(client: socket.socket) -> None:
    assert rest(client) == b""


def test_headers_that_trickle_are_refused(client: socket.socket) -> None:
    client.sendall(b"GET /healthz HTTP/1.1\r\n")
    error = refusal(trickle(client, b"x: y\r\n"))
    assert (error["code"], "0.5 s" in error["message"]) == ("slow_headers", True)


def test_so_are_those_of_a_later_request(client: socket.socket) -> None:
    client.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    client.sendall(b"GET /healthz HTTP/1.1\r\n")
    assert refusal(rest(client))["code"] == "slow_headers"


@pytest.mark.parametrize("piece", [b"a", b""], ids=["trickles", "stops"])
def test_a_body_that_comes_too_slowly_is_refused(client: socket.socket, piece: bytes) -> None:
    client.sendall(BODY + b"connection: close\r\n" + FORM + b"a")
    error = refusal(trickle(client, piece))
    assert error["code"] == "slow_body"
    assert "16384 bytes, or its end, in 0.5 s" in error["message"]
