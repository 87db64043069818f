"""`vidray simulate`: runs the simulations, prints their tables, draws their curves."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from jobs.lab.simulate.kept import Kept
from jobs.lab.simulate.scale import ARCHIVE, VIDEOS_PER_PART, Point, efficiency
from jobs.lab.simulate.scale_picture import Curve, svg
from jobs.lab.simulate.simulated_job import JobRun
from jobs.lab.simulate.simulated_sizes import Curves, FleetSize, JobSize, Sizes, sizes_of
from jobs.plan.estimate import GET_LIMIT, REQUESTS_PER_VIDEO
from jobs.plan.hardware import find_card
from pipeline.errors import ConfigError

RESULTS, PICTURE = "results.jsonl", "scale.svg"
COLOURS = {"7B": "#4e79a7", "72B": "#e15759"}
COARSE_TOKENS, COARSE_GPUS = 4_096, 16  # of a chunk, against a full stream host
DEATH_S, MORTAL_GPUS = 120.0, 4  # of one decoder: thousands of times as often as cards fail
HARD_DRIVERS = 32


def run(console: Console, *, card: str, most_gpus: int, is_full: bool, out: Path) -> None:
    """Simulate up to so many cards; what was done before is in the folder `out`, and stays."""
    found = find_card(card)
    sizes = sizes_of(found.name, most_gpus)
    special = _Special(found.name) if is_full else None
    try:
        out.mkdir(parents=True, exist_ok=True)
        kept = _simulated(console, sizes, special, out / RESULTS)
        drawn = _show(console, sizes, kept)
        if special is not None:
            special.show(console, sizes, kept)
        kinds = ", ".join(f"{kind.percent} % of {_length(kind.seconds)}" for kind in ARCHIVE)
        title = f"Simulated: Qwen2-VL on {found.name}; videos of 720p, {kinds}"
        limits = [(GET_LIMIT / REQUESTS_PER_VIDEO, "requests that S3 takes of one prefix")]
        (out / PICTURE).write_text(svg(drawn, title=title, limits=limits), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}") from error
    console.print(f"the picture: {out / PICTURE}", soft_wrap=True)


class _Special:
    """What is simulated beyond the curves: other chunks, deaths, hard times."""

    def __init__(self, card: str) -> None:
        one = FleetSize(family="7B", card=card, gpus=1)
        self.hard = JobSize(fleet=one, drivers=HARD_DRIVERS, how="in hard times")
        self.coarse = FleetSize(
            family="7B", card=card, gpus=COARSE_GPUS, chunk_tokens=COARSE_TOKENS
        )
        self.mortal = FleetSize(family="7B", card=card, gpus=MORTAL_GPUS, death_s=DEATH_S)

    def show(self, console: Console, sizes: Sequence[Sizes], kept: Kept) -> None:
        for size in (self.coarse, self.mortal):
            console.print(_table(str(size), [kept.point(size)]))
        for each in sizes:
            places, chunks = map(kept.job, each.both_ways)
            console.print(
                f"{each.both_ways[1]} ({chunks.num_videos:,} videos): {chunks.seconds:,.0f} s; "
                f"as places {places.seconds:,.0f} s, {places.seconds / chunks.seconds - 1:+.1%}"
            )
        hard, fleet = kept.job(self.hard), kept.point(self.hard.fleet)
        console.print(
            f"{self.hard}: {hard.seconds:,.0f} s where their work is "
            f"{hard.work_s / fleet.places / HARD_DRIVERS:,.0f} s of all; {hard.num_rows:,} rows of "
            f"{hard.num_videos:,} videos, failed: {_counts(hard)}; drivers that gave up: "
            f"{hard.num_stopped}; done twice: {hard.waste:.1%}"
        )


def _simulated(
    console: Console, sizes: Sequence[Sizes], special: _Special | None, file: Path
) -> Kept:
    """All of them, shown as they come."""
    fleets = [size for each in sizes for size in each.fleets]
    jobs = [size for each in sizes for size in each.many.values()]
    if special is not None:
        fleets += [special.coarse, special.mortal, special.hard.fleet]
        jobs += [special.hard, *(size for each in sizes for size in each.both_ways)]
    progress = Progress(
        TextColumn("{task.completed}/{task.total} simulations"), BarColumn(), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip

    def told(size: FleetSize | JobSize, made: Point | JobRun, took_s: float) -> None:
        console.print(f"{size}: {_said(made)} ({took_s:.0f} s)", soft_wrap=True)
        progress.advance(bar)

    num_processes = len(os.sched_getaffinity(0))
    kept = Kept(file, num_processes=num_processes, told=told)
    missing = len(kept.missing([*fleets, *jobs]))
    if missing:
        console.print(
            f"{missing} simulations on {num_processes} cores; each is kept in {file}",
            soft_wrap=True,
        )
    else:
        console.print(f"nothing to simulate: all is in {file}", soft_wrap=True)
    bar = progress.add_task("", total=missing)
    with progress:
        kept.make(fleets)
        kept.make(jobs)
    return kept


def _said(made: Point | JobRun) -> str:
    if isinstance(made, Point):
        return f"{made.videos_per_s:,.3g} videos/s, waits for {made.bottleneck}"
    return f"{made.num_videos:,} videos in {made.seconds:,.0f} s, done twice {made.waste:.1%}"


def _counts(job: JobRun) -> str:
    return ", ".join(f"{code} {count}" for code, count in sorted(job.codes.items())) or "none"


def _show(console: Console, sizes: Sequence[Sizes], kept: Kept) -> list[Curve]:
    drawn: list[Curve] = []
    for each in sizes:
        found, name = Curves.of(each, kept), f"{each.family} on {each.card}"
        for title, points in (
            ("one fleet", found.single[: len(each.single)]),  # the others are alike
            ("one fleet, several stream hosts", found.hosts),
            ("many fleets", found.many),
        ):
            if points:
                console.print(_table(f"{name}: {title}", points))
        if found.jobs:
            console.print(_jobs(f"{each.family}: many drivers on one job", found))
        lines = {
            "one fleet": (found.single, "6 4"),
            "more stream hosts": (found.hosts, "2 3"),
            "many fleets": (found.many, ""),
        }
        drawn += [
            Curve(label=f"{each.family}, {label}", colour=COLOURS[each.family], points=points,
                  dash=dash)
            for label, (points, dash) in lines.items()
            if points
        ]  # fmt: skip
    return drawn


def _jobs(title: str, found: Curves) -> Table:
    table = Table("drivers", "videos", "time used for the job", "done twice", "requests",
                  "per part", "most in a second", title=title, title_justify="left")  # fmt: skip
    for point in found.many:
        if (job := found.jobs.get(point.fleets)) is None:
            continue
        parts = -(-job.num_videos // VIDEOS_PER_PART)
        table.add_row(
            f"{point.fleets:,}", f"{job.num_videos:,}", f"{efficiency(point, job):.0%}",
            f"{job.waste:.1%}", f"{job.requests.total():,}", f"{job.requests.total() / parts:.1f}",
            f"{job.busiest_second:,}",
        )  # fmt: skip
    return table


def _table(title: str, points: Sequence[Point]) -> Table:
    table = Table(
        "GPUs", "fleets", "videos/s", "hours for 1 M hours", "waits for", "busy", title=title,
        title_justify="left",
    )  # fmt: skip
    for point in points:
        busy = ", ".join(f"{who} {share:.0%}" for who, share in point.shares.items())
        table.add_row(
            f"{point.gpus:,}", f"{point.fleets:,}", f"{point.videos_per_s:,.3g}",
            f"{point.hours:,.3g}", point.bottleneck, busy,
        )  # fmt: skip
    return table


def _length(seconds: float) -> str:
    for unit_s, unit in ((3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:g} {unit}"
    return f"{seconds:g} s"
