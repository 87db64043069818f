"""`vidray report`: rows in, one page out."""

import os
from pathlib import Path

from rich.console import Console

from jobs.exits import Exit
from jobs.report.page import write_report
from jobs.report.report_rows import read_records
from jobs.report.strips import Strips
from pipeline.store.s3_config import S3Config


def run(rows: str, page: Path, *, max_strips: int, console: Console) -> int:
    """Write the page; returns the exit code. ConfigError where there are no rows."""
    s3 = S3Config.from_environment(os.environ)
    with Console(stderr=True).status("reading rows and frames"):
        tally = write_report(
            read_records(rows, s3=s3), page, read_stills=Strips(s3=s3).read, max_strips=max_strips
        )
    print(f"{page}: {tally.num_videos} videos, {tally.num_failed} failed", file=console.file)
    return Exit.OK
