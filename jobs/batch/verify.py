"""`vidray fsck`: a job's output against its plan."""

import time

from jobs.batch.output import open_output
from jobs.exits import Exit
from pipeline.store.fsck import fsck


def run(uri: str, *, clean: bool) -> int:
    """Print what was found; returns the exit code: 0 unless committed data is wrong."""
    output = open_output(uri)
    report = fsck(output.store, now_s=time.time(), clean=clean)
    num_parts = output.plan.num_parts
    print(f"job {report.job_id}: {report.num_rows} of {output.plan.num_items} rows are sound")
    if report.is_finished:
        print("finished")
    elif report.missing:
        print(f"not finished: {len(report.missing)} of {num_parts} parts are still to be made")
    else:
        print("all parts are there, the success marker is not: run the job again")
    for problem in report.problems:
        print(f"wrong: {problem.key}: {problem.reason}")
    for orphan in report.orphans:
        fate = "deleted" if orphan.key in report.deleted else "left"
        print(f"not in the plan: {orphan.key}, {orphan.size_bytes} bytes, {fate}")
    return Exit.OK if report.is_sound else Exit.FAILED
