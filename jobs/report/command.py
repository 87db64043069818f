"""`vidray report`: rows in, one page out."""

import os
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from jobs.batch.watch import describe_failures
from jobs.exits import Exit
from jobs.printable import printable
from jobs.report.page import write_report
from jobs.report.report_rows import read_passed_over, read_records
from jobs.report.strips import Strips
from pipeline.errors import StoreCorrupt
from pipeline.store.s3_config import S3Config
from pipeline.tasks.records import Record


def run(rows: str, page: Path, *, max_strips: int, console: Console, progress: Console) -> int:
    """Write the page; returns the exit code. ConfigError where there are no rows; StoreCorrupt
    names parts that are not on the page, after it is written.
    """
    s3 = S3Config.from_environment(os.environ)
    left_out: list[StoreCorrupt] = []

    def sound() -> Iterator[Record]:
        try:
            yield from read_records(rows, s3=s3)
        except StoreCorrupt as error:
            left_out.append(error)

    with progress.status("reading rows and frames"):
        tally = write_report(
            sound(),
            page,
            left_out=left_out,
            passed_over=read_passed_over(rows, s3=s3),
            read_stills=Strips(s3=s3).read,
            max_strips=max_strips,
        )
    failed = describe_failures(tally.failures, tally.result_failures)
    print(f"{printable(str(page))}: {tally.num_videos} videos, {failed}", file=console.file)
    if left_out:
        raise left_out[0]
    return Exit.OK
