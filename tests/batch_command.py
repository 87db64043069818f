"""`vidray batch run` as a process that meets its end at a commit point.

python -m tests.batch_command JOB.yaml [kill|full POINT COUNT]
When it passes POINT the COUNT-th time it dies by SIGKILL (kill), or no file of it can grow beyond
a few bytes any more, which it meets as a full disk (full).
python -m tests.batch_command JOB.yaml wait POINT,POINT
At each of these points it stays until it reads a line.
"""

import resource
import sys
from pathlib import Path

from jobs.batch.job import make_job
from jobs.batch.run import run
from pipeline.store.job_plan import Checkpoint, CommitPoint, pass_by
from tests.batch_driver import kill_at, wait_at

MAX_FILE_BYTES = 64


def fill_at(point: CommitPoint, count: int) -> Checkpoint:
    passed = [0]

    def checkpoint(here: CommitPoint) -> None:
        passed[0] += here == point
        if here == point and passed[0] == count:
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, most))

    return checkpoint


def main(file: str, action: str = "", point: str = "", count: str = "1") -> int:
    if action == "wait":
        checkpoint = wait_at([CommitPoint(each) for each in point.split(",")])
        return run(make_job(Path(file), {}), events=None, checkpoint=checkpoint)
    meet = {"kill": kill_at, "full": fill_at}.get(action)
    checkpoint = meet(CommitPoint(point), int(count)) if meet else pass_by
    return run(make_job(Path(file), {}), events=None, checkpoint=checkpoint)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
