"""`vidray bench`: every comparison that the README quotes, as one table per topic."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from rich.console import Console

from jobs.lab.bench import (
    bench_batch,
    bench_fleet,
    bench_frames,
    bench_generate,
    bench_listing,
    bench_memory,
    bench_model,
    bench_overlap,
    bench_questions,
)
from jobs.lab.bench.measure import Row, print_table
from jobs.lab.bench.random_checkpoint import random_checkpoint
from pipeline.errors import ConfigError

Topic = Callable[[Path, int], Iterable[Row]]

TOPICS: Mapping[str, Topic] = {
    "frames": lambda folder, rounds: bench_frames.rows(folder, rounds=rounds),
    "memory": lambda folder, _: bench_memory.rows(folder, _checkpoint(folder)),
    "model": lambda folder, rounds: bench_model.rows(_checkpoint(folder), rounds=rounds),
    "generate": lambda folder, rounds: bench_generate.rows(_checkpoint(folder), rounds=rounds),
    "questions": lambda folder, rounds: bench_questions.rows(_checkpoint(folder), rounds=rounds),
    "overlap": lambda folder, rounds: bench_overlap.rows(
        folder, _checkpoint(folder), rounds=rounds
    ),
    "fleet": lambda folder, rounds: bench_fleet.rows(folder, rounds=rounds),
    "batch": lambda folder, rounds: bench_batch.rows(folder, rounds=rounds),
    "listing": lambda folder, _: bench_listing.rows(folder),
}


def run(topics: Iterable[str], *, threads: int, rounds: int, folder: Path | None) -> None:
    """Measure and print. folder keeps clips and the random checkpoint for the next run."""
    chosen = list(topics) or list(TOPICS)
    unknown = [topic for topic in chosen if topic not in TOPICS]
    if unknown:
        raise ConfigError(f"no topic {unknown[0]!r}; there are {', '.join(TOPICS)}")
    torch.set_num_threads(threads)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="vidray-bench-") as temporary:
        kept = folder or Path(temporary)
        kept.mkdir(parents=True, exist_ok=True)
        for topic in chosen:
            title = f"{topic}: {threads} threads, median of {rounds}"
            print_table(TOPICS[topic](kept, rounds), title=title, console=console)


def _checkpoint(folder: Path) -> Path:
    return random_checkpoint(folder / "checkpoint")
