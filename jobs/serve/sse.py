"""Server-sent events: blocks as a client reads them, and a comment where nothing else comes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse

KEEP_ALIVE_S = 10.0
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def block(data: Any, *, number: int | None = None, name: str | None = None) -> str:
    """One event; data is put as JSON in ASCII, which has nothing that any client takes for a line's
    end.
    """
    text = data if isinstance(data, str) else json.dumps(data)
    lines = [f"id: {number}\n" if number is not None else "", f"event: {name}\n" if name else ""]
    return "".join([*lines, f"data: {text}\n\n"])


class EventResponse(StreamingResponse):
    """The blocks as they come."""

    media_type = "text/event-stream"

    def __init__(self, blocks: AsyncIterator[str], status_code: int = 200) -> None:
        super().__init__(kept_alive(blocks), status_code, headers=_HEADERS)


async def kept_alive(
    blocks: AsyncIterator[str], *, every_s: float = KEEP_ALIVE_S
) -> AsyncIterator[str]:
    """The blocks, and a comment for every `every_s` without one. Closes them at the end."""
    async with aclosing(blocks) as source:  # type: ignore[type-var]
        following: asyncio.Task[str] | None = None
        try:
            while True:
                following = following or asyncio.ensure_future(anext(source))
                await asyncio.wait({following}, timeout=every_s)
                if not following.done():
                    yield ": still here\n\n"
                    continue
                try:
                    ready = following.result()
                except StopAsyncIteration:
                    return
                following = None
                yield ready
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
