"""The processes of a fleet on this machine: what each has computed, and what all of them hold."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import psutil

from actors.fleet import Fleet

SAMPLE_S = 0.5
ROLES = ("reader", "encoder", "decoder", "host", "rest")
Seconds = dict[str, float]  # of all cores, by role


async def processes_of(fleet: Fleet) -> dict[str, int]:
    """The process of every actor, by what it is; an actor that starts is waited for."""
    pools = fleet.pools
    named = {f"reader {n}": actor for n, actor in enumerate(pools.readers)}
    named |= {f"encoder {n}": actor for n, actor in enumerate(pools.encoders)}
    found = {name: await actor.process_id.remote() for name, actor in named.items()}
    for number, decoder in enumerate(pools.decoders):
        ranks = await decoder.process_ids.remote()
        found |= {f"decoder {number} rank {rank}": pid for rank, pid in enumerate(ranks)}
    hosts = {f"stream host {n}": host for n, host in enumerate(fleet.hosts)}
    return found | {name: await host.process_id.remote() for name, host in hosts.items()}


@dataclass(slots=True)
class Peak:
    """Bytes of all processes together, shared pages counted once, at the fullest moment so far."""

    num_bytes: int = 0


@asynccontextmanager
async def sampled_peak() -> AsyncIterator[Peak]:
    """Of this process and all below it, kept up to date."""
    peak = Peak()

    async def sample() -> None:
        while True:
            peak.num_bytes = max(peak.num_bytes, await asyncio.to_thread(held_bytes))
            await asyncio.sleep(SAMPLE_S)

    sampling = asyncio.create_task(sample())
    try:
        yield peak
    finally:
        sampling.cancel()


def held_bytes() -> int:
    """Proportional shares of this process and of all below it, added up."""
    here = psutil.Process()
    return sum(map(_bytes_of, (here, *here.children(recursive=True))))


@dataclass(frozen=True, slots=True)
class Used:
    """Of a stretch of time. seconds: of processors, by role. others_s: of all other processes."""

    wall_s: float
    seconds: Seconds
    others_s: float

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def free(self) -> float:
        """Of the cores, those that nobody else had."""
        return num_cores() - self.others_s / self.wall_s


class Meter:
    """Counts from when it is made. named: as processes_of has them."""

    def __init__(self, named: Mapping[str, int]) -> None:
        self._named = named
        self._before = busy_seconds(named)
        self._machine_s = _machine_seconds()
        self._began_s = time.monotonic()

    def read(self) -> Used:
        wall_s = time.monotonic() - self._began_s
        after = busy_seconds(self._named)
        seconds = {role: after[role] - self._before[role] for role in after}
        others_s = _machine_seconds() - self._machine_s - sum(seconds.values())
        return Used(wall_s, seconds, max(others_s, 0.0))


def num_cores() -> int:
    return os.cpu_count() or 1


def busy_seconds(named: Mapping[str, int]) -> Seconds:
    """By role; `rest` is this process, and Ray's own. named: as processes_of has them."""
    everything = _tree_seconds(psutil.Process())
    seconds = dict.fromkeys(ROLES, 0.0)
    for name, process_id in named.items():
        role = name.split()[0].replace("stream", "host")
        seconds[role] += _tree_seconds(psutil.Process(process_id))
    seconds["rest"] = everything - sum(seconds.values())
    return seconds


def _machine_seconds() -> float:
    """Of all processes of this machine; what a hypervisor gave to others is taken, too."""
    times = psutil.cpu_times()
    return float(sum(times[:8]) - times.idle - times.iowait)


def _bytes_of(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:  # of a child that hides itself, to whoever is not root
        info = process.memory_info()
        return int(info.rss - info.shared)
    except psutil.NoSuchProcess:
        return 0


def _tree_seconds(root: psutil.Process) -> float:
    """Of a process, and of all below it, those that have ended included."""
    total_s = 0.0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.Error):  # it may end meanwhile, and is counted to its parent next time
            times = process.cpu_times()
            total_s += times.user + times.system + times.children_user + times.children_system
    return total_s
