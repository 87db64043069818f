"""The endpoint under load: many clients for minutes, then ten times as many, then one.

A `vidray serve` of its own with the bundled model. What is shown: every request ends, in words or
in a 429; how soon words come; what memory does.
"""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE

import aiohttp
import psutil
from rich.console import Console
from rich.table import Table

from jobs.lab.bench.bench_clips import make_demo_clips
from jobs.lab.bench.endpoint_client import another_key, chat_body, model_name, sent
from jobs.lab.bench.endpoint_places import SERVE, Served, answering

CLIENTS = 64
OVERLOAD = 10  # times as many
OVERLOAD_S = 30.0
ALONE_S = 5.0
LOOK_S = 0.01
NUM_CLIPS = 8
MAX_PAUSE_S = 5.0  # that a client waits after a 429, whatever it was told
QUESTIONS = ("What moves?", "What color is the circle?", "What happens at the end?", "")


@dataclass(slots=True)
class ClientTally:
    """What some clients saw. Times are seconds; others: what was neither words nor a 429."""

    clients: int
    took_s: float = 0.0
    first_word_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    num_tokens: int = 0
    others: Counter[str] = field(default_factory=Counter)
    memory_mb: Sequence[float] = ()  # of all its processes, at each fifth and at the end
    probed: list[tuple[int, float]] = field(default_factory=list)  # status and when, of another
    late_s: list[float] = field(default_factory=list)  # the clients' own loop, part of all above


def show(console: Console, folder: Path, *, minutes: float) -> None:
    """Measure and print."""
    clips = make_demo_clips(folder, NUM_CLIPS)
    table = Table(title=f"endpoint: {minutes:g} minutes of {CLIENTS} clients, then overload")
    for name in ("clients", "answers", "429", "other", "first word p50", "p95", "whole p50", "p95"):
        table.add_column(name, justify="right")
    for name in (
        "429 p95",
        "most",
        "status of another's POST p95",
        "most",
        "clients' own lag p95",
        "most",
        "tokens/s",
        "MB, by fifths",
    ):
        table.add_column(name, justify="right")
    with answering(SERVE) as served:
        levels = [(1, ALONE_S), (CLIENTS, minutes * 60), (CLIENTS * OVERLOAD, OVERLOAD_S)]
        for clients, duration_s in [*levels, levels[0]]:
            with console.status(f"{clients} clients for {duration_s:g} s"):
                tally = asyncio.run(_measure(served, clips, clients, duration_s))
            table.add_row(*_cells(tally))
    console.print(table)


async def _measure(
    served: Served, clips: Sequence[Path], clients: int, duration_s: float
) -> ClientTally:
    timeout = aiohttp.ClientTimeout(total=None, sock_read=120.0)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(served.address, timeout=timeout, connector=connector) as web:
        files = [await sent(web, clip) for clip in clips]
        weighing = asyncio.create_task(_memory_by_fifths(served, duration_s))
        prober = [sys.executable, "-m", "jobs.lab.bench.endpoint_prober", served.address, files[0]]
        with subprocess.Popen(prober, stdin=PIPE, stdout=PIPE, text=True) as probing:
            tally = await load(web, files, clients=clients, duration_s=duration_s)
            said, _ = await asyncio.to_thread(probing.communicate)
        tally.probed = json.loads(said)
        tally.memory_mb = [*await weighing, await asyncio.to_thread(_memory_mb, served)]
        return tally


async def load(
    web: aiohttp.ClientSession, files: Sequence[str], *, clients: int, duration_s: float
) -> ClientTally:
    """So many clients, each asking again as soon as it is answered."""
    tally = ClientTally(clients)
    model = await model_name(web)
    started_s = time.monotonic()
    deadline_s = started_s + duration_s

    async def client(number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - not of security
        while time.monotonic() < deadline_s:
            pause_s = await _ask(web, tally, model, chance.choice(files), chance.choice(QUESTIONS))
            await asyncio.sleep(min(pause_s * (0.5 + chance.random()), MAX_PAUSE_S))

    watching = asyncio.create_task(_watch_lag(tally))
    await asyncio.gather(*map(client, range(clients)))
    watching.cancel()
    tally.took_s = time.monotonic() - started_s
    return tally


async def _watch_lag(tally: ClientTally) -> None:
    """How much later than it should this loop comes to what it has to do."""
    while True:
        due_s = time.monotonic() + LOOK_S
        await asyncio.sleep(LOOK_S)
        tally.late_s.append(max(0.0, time.monotonic() - due_s))


async def _ask(
    web: aiohttp.ClientSession, tally: ClientTally, model: str, file_id: str, question: str
) -> float:
    """One question; how long to wait before the next one."""
    body = chat_body(model, file_id, question)
    asked_s = time.monotonic()
    try:
        async with web.post("/v1/chat/completions", json=body, headers=another_key()) as answer:
            if answer.status == 429:
                tally.refused_s.append(time.monotonic() - asked_s)
                return float(answer.headers.get("retry-after", 1))
            if answer.status != 200:
                tally.others[str(answer.status)] += 1
                return 1.0
            has_word = False
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line.removeprefix(b"data: "))
                if "error" in chunk:
                    tally.others[chunk["error"]["code"]] += 1
                    return 1.0
                tally.num_tokens += (chunk.get("usage") or {}).get("completion_tokens", 0)
                if not has_word and any(each["delta"].get("content") for each in chunk["choices"]):
                    has_word = True
                    tally.first_word_s.append(time.monotonic() - asked_s)
    except (aiohttp.ClientError, TimeoutError) as error:
        tally.others[type(error).__name__] += 1
        return 1.0
    tally.total_s.append(time.monotonic() - asked_s)
    return 0.0


async def _memory_by_fifths(served: Served, duration_s: float) -> list[float]:
    found = []
    for _ in range(4):
        await asyncio.sleep(duration_s / 5)
        found.append(await asyncio.to_thread(_memory_mb, served))
    return found


def _memory_mb(served: Served) -> float:
    """Of its own pages, so that what processes share is not counted for each."""
    total = 0
    for each in served.family:
        try:
            total += each.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def _cells(tally: ClientTally) -> list[str]:
    others = ", ".join(f"{count} {what}" for what, count in tally.others.items())
    return [
        f"{tally.clients:,}",
        f"{len(tally.total_s):,}",
        f"{len(tally.refused_s):,}",
        others or "0",
        *(_seconds(tally.first_word_s, share) for share in (0.5, 0.95)),
        *(_seconds(tally.total_s, share) for share in (0.5, 0.95)),
        *(_seconds(tally.refused_s, share) for share in (0.95, 1.0)),
        *(_seconds([s for _, s in tally.probed], share) for share in (0.95, 1.0)),
        *(_seconds(tally.late_s, share) for share in (0.95, 1.0)),
        f"{tally.num_tokens / tally.took_s:,.0f}",
        " ".join(f"{each:,.0f}" for each in tally.memory_mb),
    ]


def _seconds(values: Sequence[float], share: float) -> str:
    if len(values) < 2:
        return "-"
    if share == 1:
        return f"{max(values):.2f} s"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"{cuts[round(share * 100) - 1]:.2f} s"
