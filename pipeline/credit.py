"""Bytes that one video may have on the way between its reader and its decoder."""

import asyncio


class Credit:
    """Taken before a chunk is read, given back when the decoder has it: no credit, no reading.

    One chunk may always be on the way, however large, or its video would never move.
    """

    def __init__(self, num_bytes: int) -> None:
        self._limit = num_bytes
        self._held = 0
        self._given_back = asyncio.Event()

    async def take(self, num_bytes: int) -> None:
        """Wait until so many bytes more may be on the way; one taker at a time."""
        while self._held and self._held + num_bytes > self._limit:
            self._given_back.clear()
            await self._given_back.wait()
        self._held += num_bytes

    def give_back(self, num_bytes: int) -> None:
        self._held -= num_bytes
        self._given_back.set()
