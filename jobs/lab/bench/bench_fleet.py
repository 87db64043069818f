"""What Ray costs and what it brings: the fleet against this process, and against Ray Data.

Start-up is left out on all sides: the actors are up, and the models loaded, when a clock starts,
and no process that Ray starts or ends in the background is still at it.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import ray

from actors.cluster import start_local_ray
from actors.fleet import Fleet
from actors.launch import start_fleet
from actors.profile import Profile
from jobs.lab.bench.bench_clips import make_clip, make_demo_clips, repeat_clip
from jobs.lab.bench.measure import Row
from jobs.lab.bench.ray_data import STORE_BYTES, Twin
from jobs.lab.soak.trial import descendants
from jobs.models import DEMO_MODEL
from jobs.timing import medians
from pipeline.analyse import analyse
from pipeline.config import Sampling
from pipeline.events import Event, Words
from pipeline.local import LocalFlow, LocalModel
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source

NUM_CLIPS = 100
LONG_S = (600, 601)  # two clips, so that the pools have something to do beside the first
TIMES_LONGER = 3
TASKS = Tasks(sampling=Sampling(max_new_tokens=16))
PROFILE = Profile()
SHORT = PlanOptions()
LONG = PlanOptions(long="windows")

SETTLE_S = 1.0
SETTLE_TIMEOUT_S = 60.0
IDLE_SHARE = 0.1  # of one core


def rows(
    folder: Path, *, rounds: int, num_clips: int = NUM_CLIPS, long_s: Sequence[int] = LONG_S
) -> Iterator[Row]:
    """Yield the table's rows: many short clips, then a few long ones."""
    checkpoint = DEMO_MODEL
    with _ray():
        yield from _short(checkpoint, make_demo_clips(folder, num_clips), rounds)
        long = [make_clip(folder, duration_s=seconds) for seconds in long_s]
        longer = [repeat_clip(clip, TIMES_LONGER) for clip in long]
        yield from _long(checkpoint, long, rounds, what=_minutes(long_s[0]))
        yield from _long(checkpoint, longer, rounds, what=_minutes(TIMES_LONGER * long_s[0]))


def _short(checkpoint: Path, clips: list[Path], rounds: int) -> Iterator[Row]:
    twin = _twin(checkpoint, SHORT, batch_size=PROFILE.videos_in_flight)
    with (
        _fleet(checkpoint, SHORT) as fleet,
        closing(LocalFlow(LocalModel.load(checkpoint), options=SHORT)) as flow,
    ):
        seconds = medians(
            {
                "fleet": lambda: fleet.all_of(clips),
                "in process": lambda: _in_process(flow, clips),
                "Ray Data": lambda: twin.seconds(clips),
            },
            rounds=rounds,
        )
    ours = seconds["fleet"]
    yield Row(
        what=f"{len(clips)} demo clips: what Ray costs",
        vidray=_rate(clips, ours),
        peer=f"in process {_rate(clips, seconds['in process'])}",
        ratio=ours / seconds["in process"],
        target=1.15,
        at_most=True,
    )
    yield Row(
        what=f"{len(clips)} demo clips: throughput",
        vidray=_rate(clips, ours),
        peer=f"Ray Data {_rate(clips, seconds['Ray Data'])}",
        ratio=seconds["Ray Data"] / ours,
        target=1.3,
    )


def _long(checkpoint: Path, clips: list[Path], rounds: int, *, what: str) -> Iterator[Row]:
    twin = _twin(checkpoint, LONG, batch_size=1)
    with _fleet(checkpoint, LONG) as fleet:
        seconds = medians(
            {
                "fleet": lambda: fleet.first_of(clips),
                "Ray Data": lambda: twin.seconds(clips, num_rows=1),
            },
            rounds=rounds,
        )
    yield Row(
        what=f"{len(clips)} clips of {what}: first result",
        vidray=f"{seconds['fleet']:.1f} s",
        peer=f"Ray Data {seconds['Ray Data']:.1f} s",
        ratio=seconds["Ray Data"] / seconds["fleet"],
        target=5.0,
    )


class _Analysing:
    """A fleet that is up, and the one loop that its videos are awaited in."""

    def __init__(self, fleet: Fleet, runner: asyncio.Runner) -> None:
        self._fleet = fleet
        self._runner = runner

    def all_of(self, clips: Sequence[Path]) -> float:
        """Seconds until the last record."""
        _settle()
        return self._runner.run(self._all_of(clips))

    def first_of(self, clips: Sequence[Path]) -> float:
        """Seconds until the first word of any; the rest is given up."""
        _settle()
        return self._runner.run(self._first_of(clips))

    async def _all_of(self, clips: Sequence[Path]) -> float:
        started_s = time.monotonic()
        videos = [self._fleet.analyse(Source.of(c), TASKS, video_id=c.name) for c in clips]
        for record in await asyncio.gather(*videos):
            _require_good(record)
        return time.monotonic() - started_s

    async def _first_of(self, clips: Sequence[Path]) -> float:
        started_s, first = time.monotonic(), asyncio.Event()

        def hear(event: Event) -> None:
            if isinstance(event, Words):
                first.set()

        videos = [
            asyncio.create_task(
                self._fleet.analyse(Source.of(clip), TASKS, video_id=clip.name, listener=hear)
            )
            for clip in clips
        ]
        heard = asyncio.create_task(first.wait())
        await asyncio.wait((heard, *videos), return_when=asyncio.FIRST_COMPLETED)
        seconds = time.monotonic() - started_s
        for task in (heard, *videos):
            task.cancel()
        await asyncio.gather(heard, *videos, return_exceptions=True)
        if not first.is_set():
            raise RuntimeError("a clip failed before its first word")
        return seconds


@contextmanager
def _fleet(checkpoint: Path, options: PlanOptions) -> Iterator[_Analysing]:
    async def start(fleet: Fleet) -> None:
        async for _ in fleet.starting():
            pass

    with (
        start_fleet(checkpoint, options=options, profile=PROFILE) as fleet,
        asyncio.Runner() as runner,
    ):
        runner.run(start(fleet))
        yield _Analysing(fleet, runner)


@contextmanager
def _ray() -> Iterator[None]:
    """One Ray with room for the fleet and for the twin; whichever is not measured is idle."""
    start_local_ray(object_store_bytes=STORE_BYTES, num_cpus=2 * PROFILE.num_cpus)
    try:
        yield
    finally:
        ray.shutdown()


def _settle() -> None:
    """Wait until this process's children are idle: Ray replaces the workers that ended."""
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    busy_s = _busy_s()
    while time.monotonic() < deadline_s:
        time.sleep(SETTLE_S)
        before_s, busy_s = busy_s, _busy_s()
        if abs(busy_s - before_s) < IDLE_SHARE * SETTLE_S:
            return
    raise RuntimeError(f"Ray was not idle within {SETTLE_TIMEOUT_S} s: not comparable")


def _busy_s() -> float:
    """Seconds of all cores that the processes below this one have used."""
    total_s = 0.0
    for process in descendants():
        with suppress(psutil.Error):  # it may end meanwhile
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s


def _in_process(flow: LocalFlow, clips: Sequence[Path]) -> float:
    _settle()

    async def analyse_all() -> float:
        started_s = time.monotonic()
        for clip in clips:
            _require_good(await analyse(Source.of(clip), TASKS, flow, video_id=clip.name))
        return time.monotonic() - started_s

    return asyncio.run(analyse_all())


def _twin(checkpoint: Path, options: PlanOptions, *, batch_size: int) -> Twin:
    return Twin(
        checkpoint=checkpoint, tasks=TASKS, options=options, profile=PROFILE, batch_size=batch_size
    )


def _require_good(record: Record) -> None:
    if record.code is not None:
        raise RuntimeError(f"{record.uri}: {record.code}: {record.detail}")


def _minutes(seconds: int) -> str:
    return f"{seconds / 60:.0f} minutes"


def _rate(clips: Sequence[Path], seconds: float) -> str:
    return f"{len(clips) / seconds:.2f} clips/s"
