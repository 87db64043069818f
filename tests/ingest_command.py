"""`vidray ingest tick` as a process that dies by SIGKILL when it comes to a point.

python -m tests.ingest_command SCHEDULES NAME POINT; at its end it says which modules it holds.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from jobs.ingest.ingest_commands import ticker_of
from jobs.ingest.schedules import find_schedule
from jobs.ingest.tick import TickPoint


def main(file: str, name: str, point: str) -> None:
    def checkpoint(here: TickPoint) -> None:
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    replace(ticker_of(find_schedule(Path(file), name)), checkpoint=checkpoint).run()
    print("holds", *sorted(name for name in sys.modules if "." not in name))


if __name__ == "__main__":
    main(*sys.argv[1:])
