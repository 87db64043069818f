"""What the trials share: clips, what is asked of them, and the processes of a fleet."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from actors.fleet import Fleet
from jobs.demo.demo_archive import make_archive
from pipeline.config import Sampling
from pipeline.tasks.records import Record, Timings
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.source import Source

TASKS = Tasks(
    asks=(Ask(question="What moves?"), Ask(question="What color is it?")),
    sampling=Sampling(max_new_tokens=8),
)
NO_TIMINGS = Timings(
    plan_s=0.0,
    read_s=0.0,
    encode_s=0.0,
    prefill_s=0.0,
    generate_s=0.0,
    first_word_s=None,
    total_s=0.0,
)
BAD_VIDEO = "bad.mp4"


def make_sources(folder: Path, num_videos: int, seed: int) -> list[Source]:
    """Clips of several codecs, the last of them none."""
    paths = [path for path, _ in make_archive(folder, num_videos - 1, seed)]
    bad = folder / BAD_VIDEO
    bad.write_text("this is no video")
    return [Source.of(path) for path in (*paths, bad)]


def without_timings(record: Record) -> Record:
    """What has to be the same in every run."""
    return replace(record, timings=NO_TIMINGS)


async def processes_of(fleet: Fleet) -> dict[str, int]:
    """The process of every actor, by what it is; an actor that starts is waited for."""
    pools = fleet.pools
    named = {f"reader {n}": actor for n, actor in enumerate(pools.readers)}
    named |= {f"encoder {n}": actor for n, actor in enumerate(pools.encoders)}
    found = {name: await actor.process_id.remote() for name, actor in named.items()}
    for number, decoder in enumerate(pools.decoders):
        ranks = await decoder.process_ids.remote()
        found |= {f"decoder {number} rank {rank}": pid for rank, pid in enumerate(ranks)}
    return found | {"stream host": await fleet.host.process_id.remote()}


def decoding_children(reader: int) -> list[psutil.Process]:
    """The children of a reader's zygote: one for each open video."""
    with_zygote = psutil.Process(reader).children()
    return [child for zygote in with_zygote for child in zygote.children()]


def descendants() -> set[psutil.Process]:
    """All processes below this one; each by its number and its start, as numbers come again."""
    return set(psutil.Process().children(recursive=True))


def shared_memory() -> set[str]:
    """Names of its files; semaphores are none, and are other programs'."""
    files = Path("/dev/shm").iterdir()  # noqa: S108 - where Linux has it
    return {path.name for path in files if not path.name.startswith("sem.")}


async def until_gone(processes: Iterator[psutil.Process], *, patience_s: float) -> list[str]:
    """Names of those that still live when patience is at its end."""
    left = list(processes)
    for _ in range(int(patience_s * 10)):
        left = [each for each in left if _lives(each)]
        if not left:
            break
        await asyncio.sleep(0.1)
    return [each.name() for each in left if _lives(each)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
