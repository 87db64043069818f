"""The proxy of Ray Serve is killed in mid-answer: when its client learns of it, and for how long
nobody is answered. The same request then gives the whole answer, its beginning as it was.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from rich.console import Console
from rich.table import Table

from jobs.lab.bench.bench_clips import make_demo_clips
from jobs.lab.bench.endpoint_client import another_key, chat_body, model_name, sent
from jobs.lab.bench.endpoint_places import DEFAULT, HAPROXY, Served, served_at
from jobs.lab.bench.endpoint_process import MODEL_FOLDER
from jobs.lab.bench.random_checkpoint import random_checkpoint

PROXIES = {HAPROXY: "haproxy", DEFAULT: "ray::ProxyActor"}
MAX_TOKENS = 1_000
GIVE_UP_S = 120.0
LOOK_S = 0.02


def show(console: Console, folder: Path) -> None:
    """Measure and print."""
    clips = make_demo_clips(folder, 1)
    table = Table(title="the proxy is killed in mid-answer", title_justify="left")
    for name in ("proxy", "its client learns of it after", "nobody is answered for", "the answer"):
        table.add_column(name)
    for place, victim in PROXIES.items():
        with TemporaryDirectory(prefix="vidray-outages-") as data, console.status(place):
            random_checkpoint(Path(data) / MODEL_FOLDER, num_layers=2, depth=2)
            with served_at(place, "endpoint", Path(data)) as served:
                noticed_s, away_s, is_same = asyncio.run(_measured(served, clips[0], victim))
        table.add_row(
            place, f"{noticed_s:.2f} s", f"{away_s:.1f} s", "same" if is_same else "OTHER"
        )
    console.print(table)


async def _measured(served: Served, clip: Path, victim: str) -> tuple[float, float, bool]:
    timeout = aiohttp.ClientTimeout(total=None, sock_read=GIVE_UP_S)
    async with aiohttp.ClientSession(served.address, timeout=timeout) as web:
        body = chat_body(await model_name(web), await sent(web, clip), "What moves?")
        body["max_tokens"] = MAX_TOKENS
        headers = another_key()
        heard, killed_s = "", 0.0
        try:
            async for words in _words(web, body, headers):
                if not heard:
                    _kill(served, victim)
                    killed_s = time.monotonic()
                heard += words
            raise RuntimeError("nobody noticed")
        except aiohttp.ClientError:
            noticed_s = time.monotonic() - killed_s
        while not await _is_there(web):
            await asyncio.sleep(LOOK_S)
        away_s = time.monotonic() - killed_s
        whole = "".join([words async for words in _words(web, body, headers)])
        return noticed_s, away_s, len(whole) > len(heard) and whole.startswith(heard)


async def _words(
    web: aiohttp.ClientSession, body: dict[str, object], headers: dict[str, str]
) -> AsyncIterator[str]:
    async with web.post("/v1/chat/completions", json=body, headers=headers) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if line.startswith(b"data: {"):
                for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                    if words := choice["delta"].get("content"):
                        yield words


async def _is_there(web: aiohttp.ClientSession) -> bool:
    try:
        async with web.get("/healthz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def _kill(served: Served, name: str) -> None:
    """Every process of the server that is called so."""
    victims = [each for each in served.family if any(name in word for word in each.cmdline()[:1])]
    if not victims:
        raise RuntimeError(f"there is no {name}")
    for each in victims:
        os.kill(each.pid, signal.SIGKILL)
