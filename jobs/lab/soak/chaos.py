"""`vidray soak chaos`: rounds of clips through a fleet that is hurt all the time."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from actors.fleet import Fleet
from actors.launch import start_fleet
from actors.profile import DecoderPool, EncoderPool, Profile, ReaderPool
from jobs.exits import Exit
from jobs.lab.soak.nemesis import Nemesis
from jobs.lab.soak.trial import (
    TASKS,
    descendants,
    make_sources,
    shared_memory,
    shared_memory_left,
    until_gone,
    without_timings,
)
from jobs.models import demo_model
from pipeline.config import ModelConfig
from pipeline.errors import VidrayError
from pipeline.families.qwen2_vl.config import load_config
from pipeline.tasks.records import Record
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source

GRACE_S = 30.0  # for processes to end after the fleet
MAX_PAUSE_S = 2.0  # between two injuries, after the fleet has recovered


@dataclass(slots=True)
class Trial:
    """What happened so far. processes: all that were ever seen below this one."""

    injuries: Counter[str] = field(default_factory=Counter)
    num_rounds: int = 0
    processes: set[psutil.Process] = field(default_factory=set)


def run_chaos(
    folder: Path,
    *,
    model: Path | None,
    num_injuries: int,
    num_videos: int,
    seed: int,
    stall_s: float,
) -> int:
    """Returns the exit code; VidrayError tells the first promise that was broken, and the seed."""
    checkpoint, chance = model or demo_model(), random.Random(seed)  # noqa: S311 - repeatable
    sources = make_sources(folder, num_videos, seed)
    trial, shared_before = Trial(processes=descendants()), shared_memory()
    mine = set(trial.processes)
    profile = _profile(stall_s, num_ranks=_fewest_ranks(load_config(checkpoint)))
    with start_fleet(checkpoint, options=PlanOptions(), profile=profile) as fleet:
        nemesis = Nemesis(fleet, chance, object_store_bytes=profile.object_store_bytes)
        asyncio.run(_rounds(fleet, sources, nemesis, trial, num_injuries, chance))
    left = asyncio.run(until_gone(iter(trial.processes - mine), patience_s=GRACE_S))
    left += shared_memory_left(shared_before)
    if left:
        raise VidrayError(f"left behind (seed {seed}): {', '.join(left)}")
    for injury, count in sorted(trial.injuries.items()):
        print(f"{count:4}  {injury}")
    print(
        f"{trial.injuries.total()} injuries over {trial.num_rounds} rounds of {num_videos} videos: "
        "every record once, as undisturbed; no process and no shared memory left"
    )
    return Exit.OK


def _fewest_ranks(config: ModelConfig) -> int:
    """More than one, among which the key-value heads can be dealt."""
    num_heads = config.num_kv_heads
    return next((n for n in range(2, num_heads) if num_heads % n == 0), max(num_heads, 2))


def _profile(stall_s: float, *, num_ranks: int) -> Profile:
    """Small, several ranks, and patient with videos that are hit again and again."""
    return Profile(
        readers=ReaderPool(num_cpus=0.1),
        encoders=EncoderPool(num_cpus=0.1),
        decoders=DecoderPool(tensor_parallel=num_ranks, num_cpus=0.1, kv_tokens=32_768),
        stall_s=stall_s,
        max_attempts=12,
    )


async def _rounds(
    fleet: Fleet,
    sources: list[Source],
    nemesis: Nemesis,
    trial: Trial,
    num_injuries: int,
    chance: random.Random,
) -> None:
    """Rounds until there were enough injuries; the first, undisturbed, says what is right."""
    expected = await _round(fleet, sources)
    if not any(record.status == "ok" for record in expected):
        raise VidrayError(f"no clip can be analysed: {expected[0].detail}")
    hurting = asyncio.create_task(_hurt(nemesis, trial, num_injuries, chance))
    try:
        while not hurting.done():
            if await _round(fleet, sources) != expected:
                raise VidrayError(f"a record differs after {dict(trial.injuries)}")
            trial.num_rounds += 1
        await hurting
    finally:
        hurting.cancel()


async def _round(fleet: Fleet, sources: list[Source]) -> list[Record]:
    work = (fleet.analyse(s, TASKS, video_id=str(i)) for i, s in enumerate(sources))
    return [without_timings(record) for record in await asyncio.gather(*work)]


async def _hurt(nemesis: Nemesis, trial: Trial, num_injuries: int, chance: random.Random) -> None:
    for _ in range(num_injuries):
        trial.processes |= descendants()
        await asyncio.sleep(chance.uniform(0, MAX_PAUSE_S))
        injury = await nemesis.strike()
        print(f"{trial.injuries.total() + 1}: {injury}", flush=True)
        trial.injuries[injury] += 1
        await nemesis.until_recovered()
    trial.processes |= descendants()
