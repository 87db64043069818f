"""The body of a request, as much of it as is wanted; and whether its client still waits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from jobs.serve.bodies import Body, parse
from jobs.serve.desk import Desk
from jobs.serve.refusals import Refusal
from jobs.serve.uploads import too_large

LEAST_BYTES = 1 << 14  # that come in the time of the option `body_s`
LARGE_BYTES = 1 << 16  # of a body that is parsed in a thread, or all others would wait
Value = TypeVar("Value")


def require_length(request: Request, max_bytes: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_large(max_bytes, "a body")


async def parsed(kind: type[Body], raw: bytes) -> Body:
    if len(raw) < LARGE_BYTES:
        return parse(kind, raw)
    return await asyncio.to_thread(parse, kind, raw)


async def body_of(request: Request, desk: Desk) -> bytes:
    """All of it, if it is not too large."""
    most = desk.options.max_body_bytes
    require_length(request, most)
    data = bytearray()
    async for part in blocks_of(request, desk):
        data += part
        if len(data) > most:
            raise too_large(most, "a body")
    return bytes(data)


async def blocks_of(request: Request, desk: Desk) -> AsyncIterator[bytes]:
    """The body as it comes. Refusal: 408 where it comes too slowly, 499 where its client has gone.

    Whoever takes the blocks may be slow, too: that is not the client's time.
    """
    stream, most_s = request.stream(), desk.options.body_s
    now = asyncio.get_running_loop().time
    left_s, num_bytes = most_s, 0
    while True:
        began_s = now()
        try:
            async with asyncio.timeout(left_s):  # no task: each costs all a turn
                part = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            told = f"a body brings {LEAST_BYTES} bytes, or its end, in {most_s:g} s"
            raise Refusal(408, "slow_body", f"{told}; {num_bytes} came") from None
        except ClientDisconnect:
            raise _gone() from None
        left_s, num_bytes = left_s - (now() - began_s), num_bytes + len(part)
        if num_bytes >= LEAST_BYTES:
            left_s, num_bytes = most_s, 0
        yield part


async def unless_gone(request: Request, work: Awaitable[Value]) -> Value:
    """The work's result; it is cancelled when the client hangs up. The body has been read."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_until_gone(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise _gone()
        return await working
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def _gone() -> Refusal:
    """Which nobody hears: it is for the log."""
    return Refusal(499, "gone", "the client has hung up")


async def _until_gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
