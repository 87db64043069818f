"""A blocking generator as an asynchronous one that runs ahead, but not far."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import Executor
from typing import TypeVar

Item = TypeVar("Item")


async def read_ahead(
    items: Generator[Item, None, None], *, depth: int, thread: Executor
) -> AsyncGenerator[Item, None]:
    """Yield what `items` yields, up to `depth` items being fetched ahead of the one taken.

    thread: an executor of one worker, so that items are fetched one after the other; `items` only
    ever runs there, and is closed there before this generator ends, however it ends.
    """
    loop = asyncio.get_running_loop()

    def fetch() -> asyncio.Future[Item | None]:
        return loop.run_in_executor(thread, next, items, None)

    fetching = deque(fetch() for _ in range(depth))
    try:
        while (item := await fetching.popleft()) is not None:
            fetching.append(fetch())
            yield item
    finally:
        for future in fetching:
            future.cancel()
        await loop.run_in_executor(thread, items.close)
