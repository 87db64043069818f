"""What has expired is cleared away, now and then, for as long as the endpoint lives."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

Sweep = Callable[[], Awaitable[None]]
_log = logging.getLogger("vidray.serve")


async def keep_sweeping(*sweeps: Sweep, pause_s: float) -> None:
    """Run each after every pause, until cancelled; none is left out since one has failed."""
    while True:
        await asyncio.sleep(pause_s)
        for sweep in sweeps:
            try:
                await sweep()
            except Exception as error:  # noqa: BLE001 - whatever it is, the rest is cleared
                _log.exception("sweeping is tried again in %g s: %r", pause_s, error)
