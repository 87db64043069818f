"""Records as people read them: a table on a terminal, plain lines elsewhere.

Everything a model or a file name says is shown as text: no markup, and no control characters,
which could do anything to a terminal.
"""

import os
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.exits import Exit
from jobs.printable import printable
from pipeline.errors import FailureCode
from pipeline.model.declared import DEMO_FLAG
from pipeline.tasks.records import Answer, Box, Caption, Record

CUT = "[cut off at the longest answer]"
DEMO_KNOWS = "(flag demo_model): it knows drawn shapes only; of other footage it writes nonsense."


def show(records: Sequence[Record], console: Console) -> None:
    """Print what was found out, clip by clip."""
    if console.is_terminal:
        if warning := demo_warning(sum(DEMO_FLAG in record.flags for record in records)):
            console.print(Text(warning, style="yellow"))
        console.print(_table(records))
        return
    for record in records:
        for asked, said in rows(record):
            print(f"{printable(record.uri)}: {asked}: {said}", file=console.file)


def exit_code(records: Sequence[Record]) -> Exit:
    """Of whoever made them: an answer or a box that failed counts as a video that did."""
    is_good = all(record.status == "ok" and not record.result_codes for record in records)
    return Exit.OK if is_good else Exit.SOME_FAILED


def demo_warning(num_rows: int) -> str:
    """What is to be known of rows with the flag demo_model, once for all of them."""
    by_whom = "1 row is" if num_rows == 1 else f"{num_rows:,} rows are"
    return f"{by_whom} by a demo model {DEMO_KNOWS}" if num_rows else ""


def rows(record: Record) -> Iterator[tuple[str, str]]:
    """(what was asked, what was said) in the order of the record; both printable."""
    if record.status == "failed":
        yield "failed", printable(f"{record.code}: {record.detail}")
    for caption in record.captions:
        name = "caption" + _part(caption.window_index, caption.start_s, caption.end_s)
        yield name, printable(_said(caption.text, caption))
    for answer in record.answers:
        part = _part(answer.window_index, answer.start_s, answer.end_s)
        yield printable(answer.question) + part, printable(_said(answer.answer, answer))
    for box in record.boxes:
        yield printable(f"find {box.query} at {box.time_s:.2f} s"), _place(box, record)


def _table(records: Sequence[Record]) -> Table:
    table = Table("clip", "asked", "said", show_lines=False)
    for record in records:
        for index, (asked, said) in enumerate(rows(record)):
            style = "red" if asked == "failed" else ""
            clip = printable(os.path.basename(record.uri)) if index == 0 else ""
            table.add_row(Text(clip), Text(asked, style=style), Text(said, style=style))
        table.add_section()
    return table


def _part(window_index: int | None, start_s: float, end_s: float) -> str:
    return "" if window_index is None else f" {start_s:.1f}-{end_s:.1f} s"


def _said(text: str, result: Caption | Answer) -> str:
    return _or_cut(text, result) if result.code is None else f"failed: {result.code}"


def _or_cut(said: str, result: Caption | Answer | Box) -> str:
    return f"{said} {CUT}" if result.finish_reason == "length" else said


def _place(box: Box, record: Record) -> str:
    if box.outcome != "found":
        said = "not there" if box.outcome == "absent" else printable(f"failed: {box.code}")
        if box.code is FailureCode.BEYOND_END and record.media is not None:
            said += f": the video ends at {record.media.duration_s:.2f} s"
        return _or_cut(said, box)
    corners = f"({box.x0:.0f}, {box.y0:.0f}) to ({box.x1:.0f}, {box.y1:.0f})"
    return _or_cut(corners + "".join(f", {what}" for what in box.adjusted), box)
