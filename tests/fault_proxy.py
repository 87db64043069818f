"""A loopback HTTP proxy that hurts chosen requests, to see what a client makes of it."""

import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from typing import Literal

Fault = Literal[
    "refuse",  # 503 SlowDown, not forwarded
    "html",  # 502 with a page instead of S3's XML, not forwarded
    "revoke",  # 403 InvalidAccessKeyId, not forwarded
    "reset",  # the connection dies before the request is forwarded
    "cut_upload",  # the server gets half of the body, then nothing
    "hang",  # forwarded; the answer never comes
    "drop_answer",  # forwarded and answered; the connection dies before the client hears
    "fail_after",  # forwarded; the client hears 500 InternalError
    "cut_answer",  # half of the answer's body, then a reset
    "trickle",  # the answer's body, a byte every few milliseconds
]
_TRICKLE_S = 0.005


class FaultProxy:
    """Forwards one request per connection to 127.0.0.1:port; faults are used up one by one."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._pending: list[tuple[Fault, str]] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.done: Counter[Fault] = Counter()  # faults that happened
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                proxy._serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def inject(self, fault: Fault, *, method: str, times: int = 1) -> None:
        """Hurt the next `times` requests of this method."""
        with self._lock:
            self._pending += [(fault, method)] * times

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    def _serve(self, client: socket.socket) -> None:
        try:
            head, body = _read_request(client)
            if head:
                self._answer(client, head, body, self._next_fault(head.split(b" ")[0].decode()))
        except OSError:  # either side went away: that is what this proxy is for
            _reset(client)

    def _next_fault(self, method: str) -> Fault | None:
        with self._lock:
            for index, (fault, wanted) in enumerate(self._pending):
                if wanted == method:
                    del self._pending[index]
                    self.done[fault] += 1
                    return fault
        return None

    def _answer(self, client: socket.socket, head: bytes, body: bytes, fault: Fault | None) -> None:
        if fault in _CANNED and fault != "fail_after":
            client.sendall(_CANNED[fault])
            return
        if fault == "reset":
            _reset(client)
            return
        if fault == "cut_upload":
            with socket.create_connection(self._upstream, timeout=30) as server:
                server.sendall(head + body[: len(body) // 2])
            _reset(client)
            return
        answer = self._forward(head + body)
        split = answer.index(b"\r\n\r\n") + 4
        if fault == "fail_after":
            client.sendall(_CANNED[fault])
        elif fault == "drop_answer":
            _reset(client)
        elif fault == "hang":
            client.settimeout(30)
            client.recv(1)  # until the client gives up
        elif fault == "cut_answer":
            client.sendall(answer[: split + (len(answer) - split) // 2])
            _reset(client)
        elif fault == "trickle":
            self._trickle(client, answer, split)
        else:
            client.sendall(answer)

    def _forward(self, request: bytes) -> bytes:
        with socket.create_connection(self._upstream, timeout=30) as server:
            server.sendall(request)
            answer = bytearray()
            while block := server.recv(1 << 16):
                answer += block
            return bytes(answer)

    def _trickle(self, client: socket.socket, answer: bytes, split: int) -> None:
        client.sendall(answer[:split])
        for position in range(split, len(answer)):
            if self._closing.is_set():
                return
            client.sendall(answer[position : position + 1])
            time.sleep(_TRICKLE_S)


def _canned(status: str, content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def _xml(status: str, code: str) -> bytes:
    return _canned(status, "application/xml", f"<Error><Code>{code}</Code></Error>".encode())


_CANNED: dict[str | None, bytes] = {
    "refuse": _xml("503 Slow Down", "SlowDown"),
    "html": _canned("502 Bad Gateway", "text/html", b"<h1>Bad gateway</h1>"),
    "revoke": _xml("403 Forbidden", "InvalidAccessKeyId"),
    "fail_after": _xml("500 Internal Server Error", "InternalError"),
}


def _read_request(client: socket.socket) -> tuple[bytes, bytes]:
    """Head (asking the server to close afterwards) and body; empty when nothing was asked."""
    client.settimeout(30)
    data = bytearray()
    while b"\r\n\r\n" not in data:
        block = client.recv(1 << 16)
        if not block:
            return b"", b""
        data += block
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    lengths = [line for line in lines if line.lower().startswith(b"content-length:")]
    length = int(lengths[0].split(b":")[1]) if lengths else 0
    while len(body) < length:
        body += client.recv(1 << 20)
    return b"\r\n".join([*lines, b"Connection: close", b"", b""]), body


def _reset(client: socket.socket) -> None:
    """Close with RST: the peer sees a broken connection, not an end."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
