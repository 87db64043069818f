"""Simulations side by side in processes, each kept in a file as soon as it is done.

Whoever runs the same again, with the same code, goes on from that file.
"""

import hashlib
import json
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import pipeline
from jobs.lab.simulate.scale import Point
from jobs.lab.simulate.simulated_job import JobRun
from jobs.lab.simulate.simulated_sizes import FleetSize, JobSize
from pipeline.video.confinement import end_with_parent

SIMULATED = ("pipeline", "actors", "jobs/batch", "jobs/plan", "jobs/lab/simulate")
_POINT, _JOB = TypeAdapter(Point), TypeAdapter(JobRun)


class Kept:
    """What was simulated. num_processes: at once. told: hears of each size that is done, what came
    of it, and how many seconds it took.
    """

    def __init__(
        self,
        file: Path,
        *,
        num_processes: int,
        told: Callable[[FleetSize | JobSize, Point | JobRun, float], None],
    ) -> None:
        self._file, self._num_processes, self._told = file, num_processes, told
        self._code = _digest_of_code()
        self._made: dict[str, Point | JobRun] = {}
        lines = file.read_text("utf-8").splitlines(keepends=True) if file.exists() else []
        file.with_suffix(".part").write_text("".join(filter(self._is_read, lines)), "utf-8")
        file.with_suffix(".part").rename(file)

    def point(self, size: FleetSize) -> Point:
        made = self._made[repr(size)]
        if not isinstance(made, Point):
            raise TypeError(f"{size} is no fleet")
        return made

    def job(self, size: JobSize) -> JobRun:
        made = self._made[repr(size)]
        if not isinstance(made, JobRun):
            raise TypeError(f"{size} is no job")
        return made

    def missing(self, sizes: Sequence[FleetSize | JobSize]) -> list[FleetSize | JobSize]:
        return [size for size in dict.fromkeys(sizes) if repr(size) not in self._made]

    def make(self, sizes: Sequence[FleetSize | JobSize]) -> None:
        """Simulate what is missing of these, the largest first; jobs once their fleets are made."""
        missing = sorted(self.missing(sizes), key=_weight, reverse=True)
        tasks = [
            (size, self.point(size.fleet) if isinstance(size, JobSize) else None)
            for size in missing
        ]
        if not tasks:
            return
        context = get_context("spawn")
        num_processes = min(self._num_processes, len(tasks))
        with context.Pool(num_processes, initializer=_begin) as pool:
            for number, made, took_s in pool.imap_unordered(_run, enumerate(tasks)):
                self._add(missing[number], made)
                self._told(missing[number], made, took_s)

    def _add(self, size: FleetSize | JobSize, made: Point | JobRun) -> None:
        self._made[repr(size)] = made
        adapter: TypeAdapter[Any] = _POINT if isinstance(size, FleetSize) else _JOB
        line = {
            "code": self._code,
            "size": repr(size),
            "kind": type(made).__name__,
            "made": adapter.dump_python(made, mode="json"),
        }
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _is_read(self, line: str) -> bool:
        """A line may be cut off, or another code's."""
        try:
            read = json.loads(line)
            adapter: TypeAdapter[Any] = _POINT if read["kind"] == "Point" else _JOB
            if read["code"] != self._code:
                return False
            self._made[read["size"]] = adapter.validate_python(read["made"])
        except (ValueError, KeyError, TypeError):
            return False
        return True


def _begin() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever made this ends it


_Task = tuple[int, tuple[FleetSize | JobSize, Point | None]]


def _run(task: _Task) -> tuple[int, Point | JobRun, float]:
    number, (size, fleet) = task
    begin_s = time.monotonic()
    if isinstance(size, FleetSize):
        return number, size.run(), time.monotonic() - begin_s
    if fleet is None:
        raise TypeError("a job needs its fleet")
    return number, size.run(fleet), time.monotonic() - begin_s


def _weight(size: FleetSize | JobSize) -> float:
    """About how long it takes."""
    if isinstance(size, FleetSize):
        return size.gpus
    return size.drivers * (size.fleet.gpus if size.how == "chunk by chunk" else 1 / 4)


def _digest_of_code() -> str:
    """Of all that is simulated, and of what simulates it."""
    root = Path(pipeline.__file__).parents[1]
    digest = hashlib.sha256()
    for folder in SIMULATED:
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
