"""Calls of one stream in their order: of several under way, Ray may deliver a later one first.

An async actor's calls are sent as soon as their arguments are there, whichever was made first.
"""

import asyncio

from pipeline.errors import Transient


class Arrivals:
    """Numbers of a stream's calls, from 0; each call waits for the one before to have begun."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}
        self._early: dict[str, dict[int, asyncio.Future[None]]] = {}

    def open(self, stream_id: str) -> None:
        self._next[stream_id] = 0
        self._early[stream_id] = {}

    async def until_turn(self, stream_id: str, number: int) -> None:
        """Return when it is the call's turn, at once for unknown streams; Transient if it closes.

        Whoever returns begins before it waits for anything, as the next one is let through.
        """
        if number > self._next.get(stream_id, number):
            early = asyncio.get_running_loop().create_future()
            self._early[stream_id][number] = early
            await early
        if stream_id in self._next:
            self._next[stream_id] = max(self._next[stream_id], number + 1)
            following = self._early[stream_id].pop(number + 1, None)
            if following is not None and not following.done():
                following.set_result(None)

    def close(self, stream_id: str) -> None:
        self._next.pop(stream_id, None)
        for early in self._early.pop(stream_id, {}).values():
            if not early.done():
                early.set_exception(Transient("the stream was closed"))

    def release(self, owner: str) -> None:
        """Close every stream whose id starts with "owner/"."""
        for stream_id in [name for name in self._next if name.startswith(f"{owner}/")]:
            self.close(stream_id)
