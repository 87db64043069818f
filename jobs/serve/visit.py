"""A request at an ASGI app whose client hangs on in another process: body in, answer out by pieces.

Whoever carries it asks again and again what there is to send on. Who does not ask for a while is
gone, however it went, and the app is told as of any client that hangs up.
"""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from pipeline.errors import Transient

LEASE_S = 5.0  # without a question; a carrier that lives asks every POLL_S
POLL_S = 1.0
AHEAD_BYTES = 1 << 20  # of an answer that nobody has fetched yet
AHEAD_BODIES = 8


class Visit:
    """Begins at once. Close it in the end."""

    def __init__(self, app: ASGIApp, scope: Scope, *, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._asked_s = _now_s()
        self._num_asking = 0
        self._body: asyncio.Queue[Message] = asyncio.Queue(AHEAD_BODIES)
        self._said: list[Message] = []
        self._has_news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_gone = asyncio.Event()
        self._running = asyncio.ensure_future(app(scope, self._receive, self._send))
        self._running.add_done_callback(lambda _: self._has_news.set())

    @property
    def is_over(self) -> bool:
        """Whether the app is done and all it said has been fetched."""
        return self._running.done() and not self._said

    @property
    def is_left(self) -> bool:
        """Whether nobody has asked for so long that nobody will."""
        return not self._num_asking and _now_s() - self._asked_s > self._lease_s

    async def feed(self, data: bytes, *, more: bool) -> bool:
        """The next of its body, once there is room; whether the app wants more of it."""
        put = asyncio.ensure_future(
            self._body.put({"type": "http.request", "body": data, "more_body": more})
        )
        self._num_asking += 1
        try:
            await asyncio.wait({put, self._running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()
            self._asked()
        return more and not self._running.done()

    async def said(self, *, within_s: float = POLL_S) -> list[Message]:
        """What is to be sent on; nothing if there is nothing that soon. The app's own error."""
        self._num_asking += 1
        try:
            async with asyncio.timeout(within_s):
                await self._has_news.wait()
        except TimeoutError:
            return []
        finally:
            self._asked()
        said, self._said = self._said, []
        self._has_room.set()
        if not self._running.done():
            self._has_news.clear()
        elif not said and not self._running.cancelled():
            self._running.result()
        return said

    async def close(self) -> None:
        """Tell the app that its client has hung up, and wait for its end."""
        self._is_gone.set()
        self._has_room.set()
        await asyncio.wait({self._running}, timeout=self._lease_s)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    def _asked(self) -> None:
        self._num_asking -= 1
        self._asked_s = _now_s()

    async def _receive(self) -> Message:
        coming = asyncio.ensure_future(self._body.get())
        leaving = asyncio.ensure_future(self._is_gone.wait())
        try:
            await asyncio.wait({coming, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else {"type": "http.disconnect"}
        finally:
            coming.cancel()
            leaving.cancel()

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self._has_room.wait()
        if self._is_gone.is_set():
            raise OSError("the client has hung up")
        self._said.append(dict(message))
        if sum(len(each.get("body", b"")) for each in self._said) >= AHEAD_BYTES:
            self._has_room.clear()
        self._has_news.set()


class Visits:
    """All requests of one app, by the ids that those who carry them gave."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._visits: dict[str, Visit] = {}

    @property
    def num_open(self) -> int:
        return len(self._visits)

    async def begin(self, visit_id: str, scope: Scope) -> None:
        """A request; its body follows."""
        self._visits[visit_id] = Visit(self._app, scope)

    async def feed(self, visit_id: str, body: bytes, more: bool) -> bool:
        """The next of its body; whether more of it is wanted."""
        visit = self._visits.get(visit_id)
        return visit is not None and await visit.feed(body, more=more)

    async def said(self, visit_id: str) -> list[Message]:
        """What is to be sent on by now. Transient for a visit that was given up."""
        visit = self._visits.get(visit_id)
        if visit is None:
            raise Transient("this request was given up: nobody asked for its answer")
        said = await visit.said()
        if visit.is_over:
            self._visits.pop(visit_id, None)
        return said

    async def hang_up(self, visit_id: str) -> None:
        """Its client is gone."""
        if visit := self._visits.pop(visit_id, None):
            await visit.close()

    async def give_up(self) -> None:
        """Hang up for those whose carrier is gone."""
        left = [visit_id for visit_id, visit in self._visits.items() if visit.is_left]
        await asyncio.gather(*map(self.hang_up, left))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
