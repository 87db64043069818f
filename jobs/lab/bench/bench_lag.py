"""How late a word is that somebody streams: through Ray Serve, against plain uvicorn.

What is asked is no model but a clock (clock_app.py), so that nothing but the way is measured.
"""

import asyncio
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from rich.console import Console
from rich.table import Table

from jobs.lab.bench.endpoint_places import PLACES, served_at

CLIENTS = (1, 8, 32)


def show(console: Console) -> None:
    """Measure and print."""
    table = Table(title="lag of a streamed word", title_justify="left")
    for name in ("endpoint", "clients", "words/s", "lag p50", "p95", "p99", "most"):
        table.add_column(name, justify="right")
    for place in PLACES:
        with (
            TemporaryDirectory(prefix="vidray-lag-") as folder,
            console.status(place),
            served_at(place, "clock", Path(folder)) as served,
        ):
            asyncio.run(_measured(served.address, 1))  # warm
            for clients in CLIENTS:
                started_s = time.monotonic()
                lags_s = asyncio.run(_measured(served.address, clients))
                rate = len(lags_s) / (time.monotonic() - started_s)
                cuts = statistics.quantiles(lags_s, n=100, method="inclusive")
                shown = (cuts[49], cuts[94], cuts[98], max(lags_s))
                lags = (f"{each * 1e3:,.1f} ms" for each in shown)
                table.add_row(place, f"{clients}", f"{rate:,.0f}", *lags)
        table.add_section()
    console.print(table)


async def _measured(address: str, clients: int) -> list[float]:
    """Seconds from said to heard of all words of so many clients at once."""
    async with aiohttp.ClientSession(address) as web:
        heard = await asyncio.gather(*(_listen(web) for _ in range(clients)))
    return [lag_s for each in heard for lag_s in each]


async def _listen(web: aiohttp.ClientSession) -> list[float]:
    async with web.get("/") as answer:
        answer.raise_for_status()
        return [
            time.monotonic() - float(line.removeprefix(b"data: "))
            async for line in answer.content
            if line.startswith(b"data: ")
        ]
