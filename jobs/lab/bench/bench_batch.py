"""An archive as one job against a shell loop of `vidray analyze`, and against Ray Data.

Each is a command, from start to written rows: start-up, model and all.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.lab.bench.bench_clips import make_demo_clips
from jobs.lab.bench.measure import Row
from jobs.models import DEMO_MODEL
from jobs.timing import interleaved

NUM_CLIPS = 50
MAX_NEW_TOKENS = "16"
VIDRAY = Path(sys.executable).with_name("vidray")
NAMES = {"loop": "vidray analyze in a loop", "Ray Data": "Ray Data"}


def rows(folder: Path, *, rounds: int, num_clips: int = NUM_CLIPS) -> Iterator[Row]:
    """Yield two rows over the same clips and the same words to write about each."""
    checkpoint = DEMO_MODEL
    clips, out = make_demo_clips(folder, num_clips), folder / "batch-out"
    seconds = interleaved(
        {
            "job": lambda: _job(checkpoint, clips[0].parent, out),
            "loop": lambda: _loop(checkpoint, clips),
            "Ray Data": lambda: _ray_data(checkpoint, clips, out),
        },
        rounds=rounds,
        warm_ups=0,
    )
    for peer, target in (("loop", 3.0), ("Ray Data", 1.0)):
        yield Row(
            what=f"an archive of {num_clips} clips, start-up included",
            vidray=f"{seconds['job']:.1f} s",
            peer=f"{NAMES[peer]} {seconds[peer]:.1f} s",
            ratio=seconds[peer] / seconds["job"],
            target=target,
        )


def _job(checkpoint: Path, archive: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)  # a finished job has nothing to do
    _run(VIDRAY, "batch", "run", archive, out, *_wanted(checkpoint))


def _loop(checkpoint: Path, clips: Sequence[Path]) -> None:
    for clip in clips:
        _run(VIDRAY, "analyze", clip, "--json", "--in-process", *_wanted(checkpoint))


def _ray_data(checkpoint: Path, clips: Sequence[Path], out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    _run(sys.executable, "-m", "jobs.lab.bench.ray_data", checkpoint, out, MAX_NEW_TOKENS, *clips)


def _wanted(checkpoint: Path) -> tuple[object, ...]:
    return ("--model", checkpoint, "--max-new-tokens", MAX_NEW_TOKENS)


def _run(*command: object) -> None:
    """To its end; what it says is only shown if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:4])} failed: {done.stderr[-2000:]}")
