"""Where many come at once, one a turn of the event loop: who is refused meanwhile need not wait."""

import asyncio


class Turnstile:
    """In the order in which they come."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def pass_through(self) -> None:
        """Return when it is one's turn."""
        async with self._turn:
            await asyncio.sleep(0)
