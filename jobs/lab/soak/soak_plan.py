"""`vidray soak plan`: what `vidray plan` says of an archive, and what a real run of it takes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.batch.method import make_method
from jobs.exits import Exit
from jobs.lab.bench.bench_clips import make_demo_clips
from jobs.lab.simulate.simulated_fleet import World, simulate
from jobs.plan.calibrator import Calibrator, calibrator
from jobs.plan.estimate import ROLES_OF_STAGES
from jobs.plan.memory_need import memory_bytes
from jobs.plan.options import Outlook
from jobs.plan.outlook import Plan, make_plan, pilot_of
from jobs.plan.planned_model import PlannedModel
from jobs.plan.processes import Used, num_cores, sampled_peak
from jobs.workplace import machine_profile
from pipeline.config import MIB
from pipeline.errors import ConfigError
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.video.reader import probe
from pipeline.video.source import Source

MOST_OFF, SIMULATION_OFF = 0.25, 0.15
NUM_SLICES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """A real run, slice by slice."""

    frames: int
    tokens: int
    words: int
    peak_bytes: float
    slices: Sequence[Used]

    @property
    def wall_s(self) -> float:
        return sum(each.wall_s for each in self.slices)

    @property
    def free(self) -> float:
        """Of the cores, those that nobody else had, on average."""
        return sum(each.free * each.wall_s for each in self.slices) / self.wall_s

    def seconds(self, role: str) -> float:
        """Of processors."""
        return sum(each.seconds[role] for each in self.slices)


def run_plan(folder: Path, *, model: Path | None, num_clips: int) -> int:
    """Calibrate and run in turn, then plan; returns the exit code: FAILED if the plan was off.

    In turn, because on a machine with other work a second of a processor does not always do as
    much: both see the same noise. The plan knows the trials alone, and nothing of the run.
    """
    console = Console(highlight=False)
    clips = make_demo_clips(folder, num_clips)
    outlook = Outlook(
        source=str(clips[0].parent), model=str(model or "vidray-demo"), sample=num_clips
    )
    measured = measure(outlook, clips, console)
    plan = make_plan(outlook, console)
    rows = compare(plan, measured, simulated_s=simulated(plan, clips))
    others = f"others had {num_cores() - measured.free:.2f} of {num_cores()} cores meanwhile"
    console.print(_table(rows, f"{num_clips} demo clips over Ray, plan against run; {others}"))
    is_good = all(abs(row.off) <= row.most_off for row in rows if row.most_off is not None)
    return Exit.OK if is_good else Exit.FAILED


def measure(outlook: Outlook, clips: Sequence[Path], console: Console) -> MeasuredRun:
    """All clips through a fleet, in slices between which it is calibrated."""
    model, profile = PlannedModel.of(outlook.model), machine_profile()
    if model.folder is None:
        raise ConfigError("a published size has no weights to run: name a folder")
    tasks = make_method(outlook, model.sampling).tasks
    records: list[Record] = []
    slices: list[Used] = []
    size = -(-len(clips) // NUM_SLICES)

    async def run(trials: Calibrator) -> int:
        peak_bytes = 0
        await trials.begin(pilot_of(outlook, model), tasks)
        for first in range(0, len(clips), size):
            await trials.round()
            async with sampled_peak() as peak:
                some = [Source.of(clip) for clip in clips[first : first + size]]
                made, used = await trials.measured(some, tasks)
            records.extend(made)
            slices.append(used)
            peak_bytes = max(peak_bytes, peak.num_bytes)
        trials.keep()
        return peak_bytes

    with calibrator(model.folder, profile, console) as trials:
        peak_bytes = asyncio.run(run(trials))
        words = sum(trials.count(records))
    plans = [record.plan for record in records if record.plan is not None]
    return MeasuredRun(
        frames=sum(each.num_frames for each in plans),
        tokens=sum(each.num_tokens for each in plans),
        words=words,
        peak_bytes=peak_bytes,
        slices=slices,
    )


def simulated(plan: Plan, clips: Sequence[Path]) -> float:
    """Seconds that the same clips take through the flow in virtual time."""
    if plan.calibration is None:
        raise ValueError("nothing was measured to simulate with")
    world = World(
        config=plan.model.config,
        family=plan.model.family,
        costs=plan.costs,
        profile=plan.profile,
        words=round(plan.words),
        cores=plan.calibration.cores,
    )
    media = {str(clip): probe(Source.of(clip)) for clip in clips}
    return simulate(world, media, list(media), Tasks()).seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """most_off: as a share, to be right; None is for information."""

    what: str
    planned: float
    measured: float
    most_off: float | None = None

    @property
    def off(self) -> float:
        return self.planned / self.measured - 1 if self.measured else 0.0


def compare(plan: Plan, measured: MeasuredRun, *, simulated_s: float) -> list[PlanRow]:
    """Row by row. What others took of the machine is for no plan to know: it is taken off."""
    load, share = plan.load, measured.free / num_cores()
    memory = 0.0
    if plan.calibration is not None:
        memory = memory_bytes(plan.calibration, load, plan.model.config, plan.profile)
    stages = {stage.name: stage.busy_s for stage in plan.estimate.stages}
    return [
        PlanRow(what="frames", planned=load.frames, measured=measured.frames, most_off=0.0),
        PlanRow(what="tokens", planned=load.tokens, measured=measured.tokens, most_off=0.0),
        PlanRow(what="words", planned=load.words, measured=measured.words),
        PlanRow(
            what="time, s",
            planned=plan.estimate.work_s / share,
            measured=measured.wall_s,
            most_off=MOST_OFF,
        ),
        PlanRow(
            what="time as simulated, s",
            planned=simulated_s / share,
            measured=measured.wall_s,
            most_off=SIMULATION_OFF,
        ),
        PlanRow(
            what="peak memory, MiB",
            planned=memory / MIB,
            measured=measured.peak_bytes / MIB,
            most_off=MOST_OFF,
        ),
        *(
            PlanRow(
                what=f"{stage}, s of processors",
                planned=stages[stage],
                measured=measured.seconds(role),
            )
            for stage, role in ROLES_OF_STAGES.items()
        ),
    ]


def _table(rows: list[PlanRow], title: str) -> Table:
    table = Table("", "plan", "run", "off", "at most", title=title, title_justify="left")
    for row in rows:
        limit = "" if row.most_off is None else f"{row.most_off:.0%}"
        table.add_row(
            row.what, f"{row.planned:,.1f}", f"{row.measured:,.1f}", f"{row.off:+.1%}", limit
        )
    return table
