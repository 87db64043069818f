"""A proxy on loopback before an S3 server, which hurts the requests that a rule chooses."""

import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from typing import Literal
from urllib.parse import unquote

Harm = Literal[
    "deny",  # 403 AccessDenied, not forwarded
    "revoke",  # 403 InvalidAccessKeyId, not forwarded
    "fail",  # 500 InternalError, not forwarded
    "refuse",  # 503 SlowDown, not forwarded
    "html",  # 502 with a page instead of S3's XML, not forwarded
    "reset",  # the connection dies before the request is forwarded
    "cut_upload",  # the server gets half of the body, then nothing
    "hang",  # forwarded; the answer never comes
    "drop_answer",  # forwarded and answered; the connection dies before the client hears
    "fail_after",  # forwarded; the client hears 500 InternalError
    "cut",  # half of the answer's body, then a reset
    "stall",  # half of the answer's body, then nothing until the proxy closes
    "trickle",  # the answer's body, a byte every few milliseconds
]
Rule = Callable[[str, str], Harm | None]  # of a method and an object's path, "/bucket/key"
PATIENCE_S = 60.0
TRICKLE_S = 0.005


def no_harm(method: str, path: str) -> Harm | None:
    return None


class HurtStore:
    """Forwards a request per connection to 127.0.0.1:port; `rule` may be changed at any time."""

    def __init__(self, port: int) -> None:
        self.rule: Rule = no_harm
        self.num_hurt = 0
        self._upstream = ("127.0.0.1", port)
        self._closing = threading.Event()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    proxy._serve(self.request)  # noqa: SLF001 - the same object
                except (OSError, ValueError):  # either side went away
                    _reset(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=PATIENCE_S)

    def __enter__(self) -> "HurtStore":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(PATIENCE_S)
        head, body = _read_request(client)
        if not head:
            return
        method, target, _ = head.split(b" ", 2)
        path = unquote(target.decode().partition("?")[0])
        harm = self.rule(method.decode(), path)
        self.num_hurt += harm is not None
        if harm in REFUSALS:
            client.sendall(REFUSALS[harm])
        elif harm == "reset":
            _reset(client)
        elif harm == "cut_upload":
            with socket.create_connection(self._upstream, timeout=PATIENCE_S) as server:
                server.sendall(head + body[: len(body) // 2])
            _reset(client)
        else:
            self._pass_on(client, self._forward(head + body), harm)

    def _forward(self, request: bytes) -> bytes:
        with socket.create_connection(self._upstream, timeout=PATIENCE_S) as server:
            server.sendall(request)
            answer = bytearray()
            while block := server.recv(1 << 16):
                answer += block
            return bytes(answer)

    def _pass_on(self, client: socket.socket, answer: bytes, harm: Harm | None) -> None:
        """Of an answer whatever the harm lets through."""
        head = answer.index(b"\r\n\r\n") + 4
        half = head + (len(answer) - head) // 2
        if harm is None:
            client.sendall(answer)
        elif harm == "fail_after":
            client.sendall(REFUSALS["fail"])
        elif harm == "hang":
            client.recv(1)  # until the client gives up
        elif harm == "trickle":
            client.sendall(answer[:head])
            for place in range(head, len(answer)):
                if self._closing.wait(TRICKLE_S):
                    return
                client.sendall(answer[place : place + 1])
        else:
            if harm in ("cut", "stall"):
                client.sendall(answer[:half])
            if harm == "stall":
                self._closing.wait()
            _reset(client)


def _answer(status: str, content_type: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n{body}".encode()


def _error(status: str, code: str) -> bytes:
    return _answer(status, "application/xml", f"<Error><Code>{code}</Code></Error>")


REFUSALS: dict[Harm | None, bytes] = {
    "deny": _error("403 Forbidden", "AccessDenied"),
    "revoke": _error("403 Forbidden", "InvalidAccessKeyId"),
    "fail": _error("500 Internal Server Error", "InternalError"),
    "refuse": _error("503 Slow Down", "SlowDown"),
    "html": _answer("502 Bad Gateway", "text/html", "<h1>Bad gateway</h1>"),
}


def _read_request(client: socket.socket) -> tuple[bytes, bytes]:
    """Head (asking the server to close afterwards) and body; empty if nothing was asked."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        block = client.recv(1 << 16)
        if not block:
            return b"", b""
        data += block
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    sizes = [line for line in lines if line.lower().startswith(b"content-length:")]
    size = int(sizes[0].split(b":")[1]) if sizes else 0
    while len(body) < size:
        body += client.recv(1 << 20)
    return b"\r\n".join([*lines, b"Connection: close", b"", b""]), body


def _reset(client: socket.socket) -> None:
    """Close with RST: the peer sees a broken connection, not an end."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
