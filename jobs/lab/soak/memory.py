"""`vidray soak memory`: many clips through one fleet, and what its processes needed meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import cycle, islice
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from actors.fleet import Fleet
from actors.launch import start_fleet
from actors.profile import Profile
from jobs.exits import Exit
from jobs.lab.soak.trial import TASKS, descendants, make_sources
from jobs.models import demo_model
from jobs.plan.processes import processes_of
from pipeline.config import MIB
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source

NUM_SOURCES = 12
SAMPLE_S = 0.1
MAX_GROWTH = 1.1

Bytes = dict[str, int]  # by process


def run_memory(
    folder: Path, *, model: Path | None, num_clips: int, num_early: int, seed: int
) -> int:
    """Returns the exit code: FAILED if a process grew."""
    checkpoint, sources = model or demo_model(), make_sources(folder, NUM_SOURCES, seed)
    profile = Profile()
    with start_fleet(checkpoint, options=PlanOptions(), profile=profile) as fleet:
        clips = list(islice(cycle(sources), num_clips))
        early, late = asyncio.run(_peaks(fleet, clips, num_early, profile.videos_in_flight))
    Console(highlight=False).print(_table(early, late, num_early, num_clips))
    has_grown = any(late[name] > MAX_GROWTH * early[name] for name in early)
    return Exit.FAILED if has_grown else Exit.OK


async def _peaks(
    fleet: Fleet, clips: list[Source], num_early: int, num_workers: int
) -> tuple[Bytes, Bytes]:
    """Each process's peak when num_early clips are done, and when all are."""
    async with sampled_peaks(fleet) as peaks:
        await _analyse_all(fleet, clips[:num_early], num_workers)
        await asyncio.sleep(2 * SAMPLE_S)  # what a sample began to take is taken
        early = dict(peaks)
        await _analyse_all(fleet, clips[num_early:], num_workers)
        return early, dict(peaks)


@asynccontextmanager
async def sampled_peaks(fleet: Fleet) -> AsyncIterator[Bytes]:
    """The peak memory of each process of the fleet from when it is ready, kept up to date."""
    peaks: Bytes = {}
    async for _ in fleet.starting():
        pass
    sampling = asyncio.create_task(_sample(fleet, peaks))
    try:
        yield peaks
    finally:
        sampling.cancel()


async def _analyse_all(fleet: Fleet, clips: list[Source], num_workers: int) -> None:
    numbered = iter(enumerate(clips))

    async def work() -> None:
        for number, source in numbered:
            await fleet.analyse(source, TASKS, video_id=str(number))

    await asyncio.gather(*(work() for _ in range(num_workers)))


async def _sample(fleet: Fleet, peaks: Bytes) -> None:
    named = {name: psutil.Process(pid) for name, pid in (await processes_of(fleet)).items()}
    named["driver"] = psutil.Process()
    named |= {p.name(): p for p in descendants() if p.name() in ("raylet", "gcs_server")}
    while True:
        for name, num_bytes in _own_bytes(named).items():
            peaks[name] = max(peaks.get(name, 0), num_bytes)
        await asyncio.sleep(SAMPLE_S)


def _own_bytes(named: Mapping[str, psutil.Process]) -> Bytes:
    """Resident memory that is not shared: the object store is none of theirs."""
    infos = {name: process.memory_info() for name, process in named.items()}
    return {name: info.rss - info.shared for name, info in infos.items()}


def _table(early: Bytes, late: Bytes, num_early: int, num_clips: int) -> Table:
    table = Table(title="Peak memory of each process, MiB", title_justify="left")
    for heading in ("process", f"{num_early} clips", f"{num_clips} clips", "ratio"):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    for name in sorted(early, key=early.__getitem__, reverse=True):
        figures = (early[name] / MIB, late[name] / MIB)
        ratio = late[name] / early[name]
        table.add_row(name, *(f"{figure:.0f}" for figure in figures), f"{ratio:.2f}")
    return table
