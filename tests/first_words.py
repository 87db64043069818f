"""Answers of a running fleet that get no further than their first words while a test does its harm.

Who kills somebody in the middle of an answer may be slow: the whole of it could have come by then.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray


@contextmanager
def first_words_only(decoder: Any) -> Iterator[Callable[[], None]]:
    """While entered, of this decoder, or until the function given is called.

    The decoder works on and keeps the rest to itself. One that starts again has forgotten it.
    """
    with TemporaryDirectory() as folder:
        held = Path(folder) / "held"
        held.touch()
        ray.get(decoder.__ray_call__.remote(_holding(str(held))))

        def let_go() -> None:
            held.unlink(missing_ok=True)

        yield let_go


def _holding(file: str) -> Callable[[Any], None]:
    """Run in the decoder's process, which imports no tests: it travels with all that it needs."""

    def hold(self: Any) -> None:
        import asyncio
        import os
        from contextlib import aclosing

        ask = self._engine.ask

        async def held(*arguments: Any, **options: Any) -> Any:
            async with aclosing(ask(*arguments, **options)) as deltas:
                async for delta in deltas:
                    yield delta
                    while os.path.exists(file):
                        await asyncio.sleep(0.01)

        self._engine.ask = held

    return hold
