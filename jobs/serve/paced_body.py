"""A request's body under Ray Serve no faster than it is taken.

Serve fetches what a client sends as fast as it comes, to notice when it hangs up, and keeps it all
until somebody takes it: an upload that is quicker than the disk lies in memory as a whole. Here the
fetching waits, and TCP with it, while too much has not been taken. It runs on another event loop
than whoever takes, in another thread.
"""

import asyncio

from starlette.types import Message, Receive

AHEAD_BYTES = 4 << 20


class PacedBody:
    """A `receive` like the one it is made of."""

    def __init__(self, receive: Receive, *, ahead_bytes: int = AHEAD_BYTES) -> None:
        self._receive = receive
        self._ahead_bytes = ahead_bytes
        self._num_fetched = 0  # is written by the one thread only
        self._num_taken = 0  # by the other
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        # Of Serve's ASGIDIReceiveProxy, and private there. Without it nothing is paced.
        fetch: Receive | None = getattr(receive, "_receive", None)
        if fetch is not None:
            self._fetch = fetch
            receive._receive = self._fetched  # type: ignore[attr-defined]

    async def __call__(self) -> Message:
        message = await self._receive()
        self._num_taken += len(message.get("body", b""))
        if self._waiting is not None:
            loop, has_room = self._waiting
            loop.call_soon_threadsafe(has_room.set)
        return message

    async def _fetched(self) -> Message:
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop(), asyncio.Event()
        _, has_room = self._waiting
        has_room.clear()
        while self._num_fetched - self._num_taken > self._ahead_bytes:
            await has_room.wait()
            has_room.clear()
        message = await self._fetch()
        self._num_fetched += len(message.get("body", b""))
        return message
