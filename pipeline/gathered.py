"""Items that travel together when they come faster than sending each would pay."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")
GAP_S = 0.2  # still reads as flowing; an object costs Ray about a millisecond on both sides


async def gathered(
    items: AsyncGenerator[Item, None], *, gap_s: float = GAP_S
) -> AsyncGenerator[list[Item], None]:
    """All items in order: the first one at once, then lists of what came within gap_s.

    The last list does not wait. What the items raise comes after those before it.
    """
    arrived: list[Item] = []
    wake = asyncio.Event()

    async def take_all() -> None:
        try:
            async with aclosing(items):
                async for item in items:
                    arrived.append(item)
                    wake.set()
        finally:
            wake.set()

    work = asyncio.create_task(take_all())
    try:
        while arrived or not work.done():
            await wake.wait()
            wake.clear()
            if arrived:
                batch = arrived.copy()
                arrived.clear()
                yield batch
                await asyncio.wait({work}, timeout=gap_s)
        await work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
