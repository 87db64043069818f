"""What tests of sessions do alike: run with an end, and wait for what is to be so."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

DEADLINE_S = 100


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """In an event loop of its own."""
    return asyncio.run(asyncio.wait_for(work, DEADLINE_S))


async def until(is_so: Callable[[], object]) -> None:
    while not is_so():
        await asyncio.sleep(0.001)
