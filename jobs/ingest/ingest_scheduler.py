"""`vidray ingest run`: starts a process for every tick when it is due.

A process of its own, so that a batch that ends badly ends nobody else, and a tick is the same
whoever starts it. This one only knows when; what is done once, and by whom, the journal decides.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.console import console_of
from jobs.ingest.ingest_commands import open_output
from jobs.ingest.schedules import Schedule, load_schedules
from jobs.ingest.tick_sight import LATE_S, TickSight
from jobs.sight.exporter import exported
from jobs.sight.meters import Meters
from pipeline.errors import VidrayError
from pipeline.store.catalogue import Catalogue
from pipeline.store.objects import ObjectStore
from pipeline.threads import in_thread

LOOK_EVERY_S = 15.0  # for hints; and clocks may be set meanwhile

Start = Callable[[Schedule, bool], Awaitable[None]]  # bool: only what was left lying
Hinted = Callable[[], Awaitable[bool]]


def run(file: Path, *, metrics: str | None = None) -> int:
    """Until a signal comes; returns the exit code. ConfigError before the first tick."""
    schedules = load_schedules(file)
    stores = {name: open_output(schedule) for name, schedule in schedules.items()}
    meters = Meters("ingest")
    work = keep_all(schedules, stores, start=_starter(file), meters=meters)
    with exported(meters, metrics, console_of(stderr=True)):
        return asyncio.run(_until_stopped(work))


@dataclass(slots=True)
class JournalWatch:
    """Looks at a schedule's journal: for hints, and for those who watch its ticks."""

    sight: TickSight
    store: ObjectStore
    _catalogue: Catalogue | None = None

    async def look(self) -> bool:
        """Whether somebody hinted that there is something new, and there is room for a batch.

        False where the store is away: the next tick will say so.
        """
        return await in_thread(self._look)

    def _look(self) -> bool:
        with suppress(VidrayError):
            if self._catalogue is None:
                self._catalogue = Catalogue(self.store)
            entries = self._catalogue.advance()
            state = self._catalogue.state
            self._catalogue.look_for_finished()
            self.sight.look(state, entries)
            return state.hint is not None and len(state.under_way) < self.schedule.max_active
        return False

    @property
    def schedule(self) -> Schedule:
        return self.sight.schedule


def watch_journal(sight: TickSight, store: ObjectStore) -> Hinted:
    return JournalWatch(sight, store).look


async def keep_all(
    schedules: Mapping[str, Schedule],
    stores: Mapping[str, ObjectStore],
    *,
    start: Start,
    meters: Meters,
    now: Callable[[], float] = time.time,
    watch: Callable[[TickSight, ObjectStore], Hinted] = watch_journal,
) -> None:
    """Keep every schedule, for ever."""
    async with asyncio.TaskGroup() as group:
        for name, schedule in schedules.items():
            sight = TickSight(schedule, meters, now)
            group.create_task(Keeper(schedule, start, sight, watch(sight, stores[name])).keep())


@dataclass(slots=True)
class Keeper:
    """Starts one schedule's ticks."""

    schedule: Schedule
    start: Start
    sight: TickSight
    hinted: Hinted

    async def keep(self) -> None:
        """What was missed first, then each tick at its instant, or when somebody hints."""
        running: set[asyncio.Task[None]] = set()
        only_resume = self.schedule.catch_up == "none"
        async with asyncio.TaskGroup() as group:
            while True:
                # One more than there is room for: it says that there is none, or waits.
                if len(running) <= self.schedule.max_active:
                    task = group.create_task(_as_task(self.start(self.schedule, only_resume)))
                    running.add(task)
                    task.add_done_callback(running.discard)
                next_s = await self._next()
                is_late = self.sight.now() - next_s > LATE_S
                only_resume = is_late and self.schedule.catch_up == "none"

    async def _next(self) -> float:
        """The instant of the next tick, once it has come; or now, for a hint."""
        now = self.sight.now
        next_s = next(self.schedule.calendar.after(now()))
        while (left_s := next_s - now()) > 0:
            await asyncio.sleep(min(left_s, LOOK_EVERY_S))
            if await self.hinted():
                return now()
        self.sight.due()
        return next_s


async def _as_task(work: Awaitable[None]) -> None:
    await work


def _starter(file: Path) -> Start:
    async def start(schedule: Schedule, only_resume: bool) -> None:
        """`vidray ingest tick`, to its end; told to stop when this is cancelled."""
        command = ["ingest", "tick", schedule.name, "--schedules", str(file)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobs.cli", *command, *["--resume"] * only_resume),
            env=os.environ,
        )
        try:
            await process.wait()
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    return start


async def _until_stopped(work: Awaitable[None]) -> int:
    """Cancelled by the first signal; batches under way then get their grace."""
    task, heard = asyncio.ensure_future(work), [signal.SIGTERM]
    loop = asyncio.get_running_loop()

    def hear(number: signal.Signals) -> None:
        heard[:] = [number]
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, hear, number)
    with suppress(asyncio.CancelledError):
        await task
    return 128 + heard[0]
