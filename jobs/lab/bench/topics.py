"""`vidray bench`: every comparison that the README quotes, as one table per topic."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from jobs.lab.bench.measure import Row, print_table
from jobs.lab.bench.random_checkpoint import random_checkpoint
from jobs.lab.gpu.gpu_tables import print_checks, print_estimate
from pipeline.errors import ConfigError

Topic = Callable[[Path, int], Iterable[Row]]


def _bench(topic: str) -> Any:
    """Loaded when it is wanted: one topic's peers need not be there for another."""
    return import_module(f"jobs.lab.bench.bench_{topic}")


TOPICS: Mapping[str, Topic] = {
    "frames": lambda folder, rounds: _bench("frames").rows(folder, rounds=rounds),
    "memory": lambda folder, _: _bench("memory").rows(folder, _checkpoint(folder)),
    "model": lambda folder, rounds: _bench("model").rows(_checkpoint(folder), rounds=rounds),
    "generate": lambda folder, rounds: _bench("generate").rows(_checkpoint(folder), rounds=rounds),
    "questions": lambda folder, rounds: _bench("questions").rows(
        _checkpoint(folder), rounds=rounds
    ),
    "overlap": lambda folder, rounds: _bench("overlap").rows(
        folder, _checkpoint(folder), rounds=rounds
    ),
    "fleet": lambda folder, rounds: _bench("fleet").rows(folder, rounds=rounds),
    "batch": lambda folder, rounds: _bench("batch").rows(folder, rounds=rounds),
    "listing": lambda folder, _: _bench("listing").rows(folder),
    "tick": lambda folder, _: _bench("tick").rows(),
    "engines": lambda folder, rounds: _bench("engines").rows(
        folder, _checkpoint(folder), rounds=rounds
    ),
}
OF_THE_ENDPOINT: Mapping[str, Callable[[Console, Path, "Extent"], None]] = {
    "endpoint": lambda console, folder, extent: _bench("endpoint").show(
        console, folder, minutes=extent.minutes
    ),
    "uploads": lambda console, folder, _: _bench("uploads").show(console, folder),
    "hangups": lambda console, folder, _: _bench("hangups").show(console, folder),
    "outages": lambda console, folder, _: _bench("outages").show(console, folder),
    "lag": lambda console, *_: _bench("lag").show(console),
    "servers": lambda console, folder, extent: _bench("servers").show(
        console, folder, rounds=extent.rounds, threads=extent.threads, vllm=extent.vllm
    ),
}
APART = (*OF_THE_ENDPOINT, "gpu")  # with tables of their own
# Not among "all": one needs vLLM, some take minutes, one says something about GPUs only.
ON_DEMAND = ("engines", *APART)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured. minutes: of load. vllm: the Python that topic servers finds it with."""

    threads: int
    rounds: int
    minutes: float = 0.75
    vllm: Path | None = None


def run(
    topics: Iterable[str], extent: Extent, *, folder: Path | None, estimate: bool = False
) -> None:
    """Measure and print. folder keeps clips and the random checkpoint for the next run.

    estimate: of topic gpu, what arithmetic says instead of what a GPU does.
    """
    chosen = list(topics) or [topic for topic in TOPICS if topic not in ON_DEMAND]
    unknown = [topic for topic in chosen if topic not in (*TOPICS, *APART)]
    if unknown:
        raise ConfigError(f"no topic {unknown[0]!r}; there are {', '.join((*TOPICS, *APART))}")
    if estimate and chosen != ["gpu"]:
        raise ConfigError("--estimate is of topic gpu alone")
    torch.set_num_threads(extent.threads)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="vidray-bench-") as temporary:
        kept = folder or Path(temporary)
        kept.mkdir(parents=True, exist_ok=True)
        for topic in chosen:
            if topic == "gpu":
                print_estimate(console, kept) if estimate else print_checks(console)
                continue
            if show := OF_THE_ENDPOINT.get(topic):
                show(console, kept, extent)
                continue
            title = f"{topic}: {extent.threads} threads, median of {extent.rounds}"
            print_table(TOPICS[topic](kept, extent.rounds), title=title, console=console)


def _checkpoint(folder: Path) -> Path:
    return random_checkpoint(folder / "checkpoint")
