"""Peak memory of a long clip against a short one of the same size: read alone, and described."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from jobs.lab.bench.bench_clips import make_clip
from jobs.lab.bench.measure import Row
from pipeline.config import MIB

_READ = """
from jobs.lab.bench.bench_frames import read_all
read_all(clip, fps=2.0)
"""
_WHOLE = """
import asyncio
from pipeline.analyse import analyse
from pipeline.config import Sampling
from pipeline.local import LocalFlow, LocalModel
from pipeline.tasks.tasks import Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
flow = LocalFlow(LocalModel.load(Path(sys.argv[2])), options=PlanOptions())
tasks = Tasks(sampling=Sampling(max_new_tokens=8))
record = asyncio.run(analyse(Source.of(clip), tasks, flow, video_id="clip"))
flow.close()
if record.code is not None:
    sys.exit(f"{record.code}: {record.detail}")
"""
_FLEET = """
import asyncio, sys
from pathlib import Path
from actors.launch import start_fleet
from jobs.lab.soak.memory import sampled_peaks
from pipeline.config import Sampling
from pipeline.tasks.tasks import Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
tasks = Tasks(sampling=Sampling(max_new_tokens=8))
async def peak(fleet):
    async with sampled_peaks(fleet) as peaks:
        record = await fleet.analyse(Source.of(Path(sys.argv[1])), tasks, video_id="clip")
    if record.code is not None:
        sys.exit(f"{record.code}: {record.detail}")
    return sum(peaks.values())
with start_fleet(Path(sys.argv[2]), options=PlanOptions()) as fleet:
    print(asyncio.run(peak(fleet)))
"""
_IN_PROCESS = """
import resource, sys
from pathlib import Path
clip = Path(sys.argv[1])
{work}
from pipeline.video.zygote import stop_zygote
stop_zygote()  # it has waited for its children, and is now waited for: their peaks count
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024)
"""
SCRIPTS = {
    "reading 10 minutes": _IN_PROCESS.format(work=_READ),
    "a caption of 10 minutes": _IN_PROCESS.format(work=_WHOLE),
    "a caption of 10 minutes over Ray, all processes": _FLEET,
}


def rows(folder: Path, checkpoint: Path) -> Iterator[Row]:
    """Yield a row a script: ten minutes against one, each in a fresh process with its children."""
    clips = [make_clip(folder, duration_s=seconds, keyframe_s=10.0) for seconds in (60, 600)]
    for what, script in SCRIPTS.items():
        short, long = (_peak_bytes(clip, checkpoint, script) for clip in clips)
        yield Row(
            what=f"peak memory of {what}",
            vidray=f"{long / MIB:,.0f} MiB",
            peer=f"1 minute {short / MIB:,.0f} MiB",
            ratio=long / short,
            target=1.1,
            at_most=True,
        )


def _peak_bytes(clip: Path, checkpoint: Path, script: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", script, str(clip), str(checkpoint)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)
