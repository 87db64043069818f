"""Clients that hang up in mid-answer: for how long a decoder keeps keys and values for nobody.

Idle videos keep nothing here (a profile says so), so all that is held is held by answers. The
model is a small one of random weights, which does not come to an end by itself.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import yaml
from rich.console import Console
from rich.table import Table

from jobs.lab.bench.bench_clips import make_demo_clips
from jobs.lab.bench.endpoint_client import chat_body, model_name, sent
from jobs.lab.bench.endpoint_places import PLACES, Served, served_at
from jobs.lab.bench.endpoint_process import MODEL_FOLDER, PROFILE_FILE
from jobs.lab.bench.random_checkpoint import random_checkpoint

NUM_HANGUPS = 200
AT_ONCE = (20, 200)
MOST_PAUSE_S = 1.0  # from the acceptance of an answer until its client goes
MAX_TOKENS = 500  # that it would have; one step of the model is one of each
NUM_CLIPS = 8
MOST_S = 2.0
GIVE_UP_S = 30.0
LOOK_S = 0.01
PROFILE = {"name": "hangups", "sessions": {"idle_tokens": 0}}


def show(console: Console, folder: Path) -> None:
    """Measure and print."""
    clips = make_demo_clips(folder, NUM_CLIPS)
    table = Table(title=f"{NUM_HANGUPS} clients hang up in mid-answer", title_justify="left")
    for name in ("endpoint", "at once", "videos held", "none after", ""):
        table.add_column(name)
    for place in PLACES:
        with TemporaryDirectory(prefix="vidray-hangups-") as data, console.status(place):
            random_checkpoint(Path(data) / MODEL_FOLDER, num_layers=2, depth=2)
            (Path(data) / PROFILE_FILE).write_text(yaml.safe_dump(PROFILE))
            with served_at(place, "endpoint", Path(data)) as served:
                for at_once in AT_ONCE:
                    held, free_s = asyncio.run(_measured(served, clips, at_once))
                    verdict = "[green]holds[/]" if free_s < MOST_S else "[red]missed[/]"
                    table.add_row(place, f"{at_once}", f"{held}", f"{free_s:.2f} s", verdict)
        table.add_section()
    console.print(table)


async def _measured(served: Served, clips: Sequence[Path], at_once: int) -> tuple[int, float]:
    """How many videos were held when the last client went, and seconds from then until none was."""
    numbers = iter(range(NUM_HANGUPS))
    timeout = aiohttp.ClientTimeout(total=None, sock_read=120.0)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(served.address, timeout=timeout, connector=connector) as web:
        model = await model_name(web)
        files = [await sent(web, clip) for clip in clips]

        async def client() -> None:
            for number in numbers:
                chance = random.Random(number)  # noqa: S311 - not of security
                question = f"What is number {number}?"
                body = chat_body(model, chance.choice(files), question)
                await _hang_up(web, body, after_s=chance.random() * MOST_PAUSE_S)

        await asyncio.gather(*(client() for _ in range(at_once)))
        left_s = time.monotonic()
        held = at_first = await asyncio.to_thread(served.num_held)
        while held:
            if time.monotonic() - left_s > GIVE_UP_S:
                raise RuntimeError(f"{held} videos are held for nobody after {GIVE_UP_S:g} s")
            await asyncio.sleep(LOOK_S)
            held = await asyncio.to_thread(served.num_held)
    return at_first, time.monotonic() - left_s


async def _hang_up(web: aiohttp.ClientSession, body: dict[str, Any], *, after_s: float) -> None:
    """Close the connection so long after the answer was accepted."""
    body = body | {"max_tokens": MAX_TOKENS}
    async with web.post("/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        await answer.content.readline()
        await asyncio.sleep(after_s)
        answer.close()
