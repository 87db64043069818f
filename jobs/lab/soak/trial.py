"""What the trials share: clips, what is asked of them, and the processes of a fleet."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

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


def shared_memory_left(before: set[str]) -> list[str]:
    """Names that were not there before, and stay: other programs' come and go."""
    left = shared_memory() - before
    for _ in range(100):
        if not left:
            break
        time.sleep(0.1)
        left &= shared_memory()
    return sorted(left)


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
