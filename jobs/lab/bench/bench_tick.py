"""What a tick of a large archive costs: listed, compared, taken, its batch planned.

`vidray bench tick`: the process of a tick that finds 100,000 keys, and among them 1,000 that the
tick before it did not. That one finds all others, and has the questions checked, by a process of
its own.
Another archive, or a model: python -m jobs.lab.bench.bench_tick KEYS NEW [MODEL].
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.batch.job import Job
from jobs.exits import Exit
from jobs.ingest.batches import RealBatches
from jobs.ingest.schedules import Schedule
from jobs.ingest.tick import Ticker
from jobs.lab.bench.key_server import key_server
from jobs.lab.bench.measure import Row
from jobs.models import DEMO_MODEL
from pipeline.store.open import open_store

NUM_KEYS, NUM_NEW = 100_000, 1_000
MOST_S, MOST_MB = 60, 300
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}  # the server asks for none
FAR_S = 1e9  # of a lease: nobody goes on with the batch of the tick before
HEAVY = ("torch", "ray")
# No file: the process that checks the questions would load it, too, with all that is loaded here.
PROGRAM = "from jobs.lab.bench.bench_tick import main; main()"


@dataclass(frozen=True, slots=True)
class TickCost:
    """Of one process, from its start. heavy: which of HEAVY it loaded. check_mb: at most, of the
    process that checks its questions; 0 if none did.
    """

    took_s: float
    cpu_s: float
    peak_mb: float
    check_mb: float
    heavy: tuple[str, ...]


class SubmittedBatches(RealBatches):
    """Real but for the process that a batch is: nobody makes its rows."""

    def run(self, job: Job, address: str | None) -> Exit:
        return Exit.OK


def rows() -> Iterator[Row]:
    """Yield the table's rows."""
    for num_new, cost in zip(
        (NUM_KEYS - NUM_NEW, NUM_NEW), measured(NUM_KEYS, NUM_NEW), strict=True
    ):
        what = f"a tick of {NUM_KEYS:,} keys, {num_new:,} new"
        yield _row(f"{what}: time", cost.took_s, MOST_S, "s")
        yield _row(
            f"{what}: peak memory of a process", max(cost.peak_mb, cost.check_mb), MOST_MB, "MB"
        )


def _row(what: str, value: float, most: float, unit: str) -> Row:
    return Row(
        what=what,
        vidray=f"{value:.0f} {unit}",
        peer=f"limit {most:.0f} {unit}",
        ratio=value / most,
        target=1.0,
        at_most=True,
    )


def measured(num_keys: int, num_new: int, model: str = DEMO_MODEL.name) -> list[TickCost]:
    """Of the tick before, and of the one that finds so many new."""
    costs = []
    with tempfile.TemporaryDirectory() as out:
        for number, count in enumerate((num_keys - num_new, num_keys)):
            with key_server(count) as endpoint:
                environment = os.environ | KEYS | {"AWS_ENDPOINT_URL": endpoint}
                command = [sys.executable, "-c", PROGRAM, out, str(number), model]
                ticked = subprocess.run(
                    command, env=environment, check=True, stdout=subprocess.PIPE, text=True
                )
                costs.append(TickCost(**json.loads(ticked.stdout.splitlines()[-1])))
    return costs


def tick(out: str, number: int, model: str) -> TickCost:
    """In this process, which is to end then."""
    begin_s = time.monotonic()
    schedule = Schedule(
        name="keys",
        cron="@daily",
        source="s3://keys",
        out=out,
        max_active=2,
        lease_s=FAR_S,
        job={"model": model, "ask": "What happens?"},
    )
    batches = SubmittedBatches()
    Ticker(schedule=schedule, store=open_store(out), batches=batches, by="bench").run([number])
    return TickCost(
        took_s=time.monotonic() - begin_s,
        cpu_s=time.process_time(),
        peak_mb=peak_kib() / 1024,
        # No less than what this process had when it started the other.
        check_mb=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        heavy=tuple(name for name in HEAVY if name in sys.modules),
    )


def peak_kib() -> int:
    """Of this process. Not ru_maxrss, which begins with what whoever started it had."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak)


def main() -> None:
    """A tick by itself, or all of them."""
    first, second, *rest = sys.argv[1:]
    if not first.isdecimal():
        print(json.dumps(asdict(tick(first, int(second), *rest))))
        return
    for each in measured(int(first), int(second), *rest):
        print(each)


if __name__ == "__main__":
    main()
