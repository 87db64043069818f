"""An HTTP connection over which requests come in time, or it is closed: uvicorn waits for ever.

Covered: a client that says nothing, and one whose headers come byte by byte, for its first request
and for each later one. How fast a body comes is looked at where it is read (request_body.py), and
silence between two requests by uvicorn (`timeout_keep_alive`).
"""

import asyncio
import json

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from jobs.serve.refusals import Refusal

HEADERS_S = 20.0  # from a connection's beginning, or a request's first byte


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's, of either of its parsers."""

    _deadline: asyncio.TimerHandle | None = None
    _has_begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        self._has_begun = True
        if self._deadline is None and not self._is_asked:
            self._await_headers()
        super().data_received(data)
        if self._is_asked:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _is_asked(self) -> bool:
        """All headers of a request are here, and not all of its answer is told."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_headers(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(HEADERS_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self._has_begun:
            told = f"a request's headers did not come within {HEADERS_S:g} s"
            body = json.dumps(Refusal(408, "slow_headers", told).body).encode()
            head = (
                "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
