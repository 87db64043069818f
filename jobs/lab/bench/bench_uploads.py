"""A large upload to a slow disk: what it takes of the memory of each process it goes through."""

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import psutil
from rich.console import Console
from rich.table import Table

from jobs.lab.bench.bench_clips import make_demo_clips
from jobs.lab.bench.endpoint_client import sent
from jobs.lab.bench.endpoint_places import PLACES, Served, served_at

UPLOAD_BYTES = 500_000_000
MOST_MB = 64.0
DISK_S_PER_BYTE = 1 / 25e6
LOOK_S = 0.05
# Python runs this at its start; it makes what is written into an endpoint's folder take its time.
SLOW_DISK = f"""
import io, time
_open = io.open
class _Slow(io.FileIO):
    def write(self, data):
        time.sleep(len(data) * {DISK_S_PER_BYTE})
        return super().write(data)
def _opened(file, mode="r", *rest, **more):
    if "x" in mode and "/incoming/" in str(file):
        return _Slow(file, mode)
    return _open(file, mode, *rest, **more)
io.open = _opened
"""


@dataclass(slots=True)
class Growth:
    """Of each process that a tree had at the start, by its name: bytes at first and at most."""

    first: dict[int, int] = field(default_factory=dict)
    most: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def look(self, family: list[psutil.Process]) -> None:
        for each in family:
            try:
                held, name = each.memory_info().rss, _name(each)
            except psutil.Error:
                continue
            self.names[each.pid] = name
            self.first.setdefault(each.pid, held)
            self.most[each.pid] = max(self.most.get(each.pid, 0), held)
            self.last[each.pid] = held

    def most_mb(self) -> list[tuple[str, float, float]]:
        """Name, growth at most, growth in the end; the largest first."""
        grown = [
            (self.names[each], (self.most[each] - first) / 1e6, (self.last[each] - first) / 1e6)
            for each, first in self.first.items()
        ]
        return sorted(grown, key=lambda row: -row[1])


def show(console: Console, folder: Path, *, num_bytes: int = UPLOAD_BYTES) -> None:
    """Measure and print."""
    table = Table(
        title=f"upload of {num_bytes / 1e6:,.0f} MB to a disk of 25 MB/s", title_justify="left"
    )
    for name in ("endpoint", "took", "process", "grew by at most", "and for good", ""):
        table.add_column(name)
    clip = make_demo_clips(folder, 1)[0]
    for place in PLACES:
        with TemporaryDirectory(prefix="vidray-uploads-") as data, console.status(place):
            film = padded(clip, Path(data) / "film.mp4", num_bytes)
            growth, took_s = _uploaded(place, film, Path(data))
        rows = growth.most_mb()
        for index, (name, most_mb, last_mb) in enumerate(rows):
            if index > 0 and most_mb < 8:
                continue
            verdict = "[green]holds[/]" if most_mb < MOST_MB else "[red]missed[/]"
            what = (place, f"{took_s:.0f} s") if index == 0 else ("", "")
            table.add_row(*what, name, f"{most_mb:+.0f} MB", f"{last_mb:+.0f} MB", verdict)
        table.add_section()
    console.print(table)


def _uploaded(place: str, film: Path, data: Path) -> tuple[Growth, float]:
    (data / "sitecustomize.py").write_text(SLOW_DISK)
    environment = {"PYTHONPATH": str(data)}
    with served_at(place, "endpoint", data, environment=environment) as served:
        growth = Growth()
        started_s = time.monotonic()
        with _watched(growth, served):
            asyncio.run(_send(served.address, film))
        return growth, time.monotonic() - started_s


async def _send(address: str, film: Path) -> None:
    timeout = aiohttp.ClientTimeout(total=None, sock_read=300.0)
    async with aiohttp.ClientSession(address, timeout=timeout) as web:
        await sent(web, film)


@contextmanager
def _watched(growth: Growth, served: Served) -> Iterator[None]:
    family = served.family
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(LOOK_S):
            growth.look(family)

    growth.look(family)
    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        time.sleep(1.0)  # for what is given back
        growth.look(family)


def padded(clip: Path, path: Path, num_bytes: int) -> Path:
    """The clip as so large a file: a box of nothing behind it."""
    shutil.copyfile(clip, path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size)
        file.write((num_bytes - size).to_bytes(4, "big") + b"free")
        file.truncate(num_bytes)
    return path


def _name(process: psutil.Process) -> str:
    words = process.cmdline() or [process.name()]
    return (
        words[0].split("(")[0]
        if words[0].startswith("ray::")
        else process.name() + " " + " ".join(Path(w).name for w in words[1:4])
    )
