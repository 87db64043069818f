"""Peak memory of reading a long clip against a short one of the same size."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from jobs.bench.clips import make_clip
from jobs.bench.measure import Row
from pipeline.config import MIB

_SCRIPT = """
import resource, sys
from pathlib import Path
from jobs.bench.frames import read_all
read_all(Path(sys.argv[1]), fps=2.0)
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def rows(folder: Path) -> Iterator[Row]:
    """Yield one row: ten minutes against one, each read in a fresh process with its child."""
    short, long = (
        _peak_bytes(make_clip(folder, duration_s=seconds, keyframe_s=10.0)) for seconds in (60, 600)
    )
    yield Row(
        what="peak memory of reading 10 minutes",
        vidray=f"{long / MIB:,.0f} MiB",
        peer=f"1 minute {short / MIB:,.0f} MiB",
        ratio=long / short,
        target=1.1,
        at_most=True,
    )


def _peak_bytes(clip: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(clip)], check=True, capture_output=True, text=True
    )
    return int(done.stdout) * 1024
