"""`vidray fsck`: a job's output against its plan."""

import time

from rich.console import Console

from jobs.batch.output import open_output
from jobs.exits import Exit
from jobs.printable import printable
from pipeline.store.fsck import FsckReport, fsck
from pipeline.store.retries import find_retries
from pipeline.store.rows import count_newest


def run(uri: str, *, clean: bool, repair: bool, progress: Console) -> int:
    """Print what was found; returns the exit code: that of status, and 1 where data is wrong."""
    output = open_output(uri)
    stores = [output.store, *(each.store for each in find_retries(output.store))]
    with progress.status("reading every part"):
        reports = [fsck(each, now_s=time.time(), clean=clean, repair=repair) for each in stores]
    for store, report in zip(stores, reports, strict=True):
        if store is not output.store:
            print(printable(store.uri))
        _show(report)
    if any(report.problems or not report.is_finished for report in reports):
        return Exit.FAILED
    num_failed = count_newest(output.store).num_failed
    return Exit.SOME_FAILED if num_failed else Exit.OK


def _show(report: FsckReport) -> None:
    print(f"job {report.job_id}: {report.num_rows} of {report.num_planned} rows are sound")
    if report.is_finished:
        print("finished")
    elif report.missing:
        missing = f"{len(report.missing)} of {report.num_parts}"
        print(f"not finished: {missing} parts are still to be made")
    else:
        print("all parts are there, the success marker is not: run the job again")
    for problem in report.problems:
        print(printable(f"wrong: {problem.key}: {problem.reason.removeprefix(f'{problem.key} ')}"))
    for orphan in report.orphans:
        fate = "deleted" if orphan.key in report.deleted else "left"
        print(printable(f"not in the plan: {orphan.key}, {orphan.size_bytes} bytes, {fate}"))
    for key, aside in report.moved.items():
        print(printable(f"moved aside: {key}, to {aside}"))
    if report.is_plan_damaged:
        print("the plan itself is damaged: put its object back, or run the job to another output")
    elif report.moved:
        print("run the job again: it makes what is missing now")
    elif report.problems:
        print("to have the damage made again: vidray fsck --repair, then run the job again")
