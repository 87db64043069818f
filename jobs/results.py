"""Records as people read them: a table on a terminal, plain lines elsewhere.

Everything a model or a file name says is shown as text: no markup, and no control characters,
which could do anything to a terminal.
"""

import os
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.model.declared import DEMO_FLAG
from pipeline.tasks.records import Box, Record

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
        yield name, printable(_said(caption.text, caption.code))
    for answer in record.answers:
        part = _part(answer.window_index, answer.start_s, answer.end_s)
        yield printable(answer.question) + part, printable(_said(answer.answer, answer.code))
    for box in record.boxes:
        yield printable(f"find {box.query} at {box.time_s:.2f} s"), _place(box)


def printable(text: str) -> str:
    """One line without control characters."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


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


def _said(text: str, code: str | None) -> str:
    return text if code is None else f"failed: {code}"


def _place(box: Box) -> str:
    if box.outcome != "found":
        return "not there" if box.outcome == "absent" else printable(f"failed: {box.code}")
    corners = f"({box.x0:.0f}, {box.y0:.0f}) to ({box.x1:.0f}, {box.y1:.0f})"
    return corners + "".join(f", {what}" for what in box.adjusted)
