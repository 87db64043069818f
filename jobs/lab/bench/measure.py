"""The table that shows ratios, and which of them miss their target."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison. ratio > 1 means vidray is better; target is what the project promises."""

    what: str
    vidray: str
    peer: str
    ratio: float
    target: float
    at_most: bool = False  # the ratio is a cost: it has to stay below the target

    @property
    def holds(self) -> bool:
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


def print_table(rows: Iterable[Row], *, title: str, console: Console) -> None:
    """Print the rows; a figure that misses its target says so in words, not only in colour."""
    table = Table(title=title, title_justify="left")
    for name in ("what", "vidray", "against"):
        table.add_column(name)
    for name in ("ratio", "target", ""):
        table.add_column(name, justify="right")
    for row in rows:
        sign = "<=" if row.at_most else ">="
        verdict = "[green]holds[/]" if row.holds else "[red]missed[/]"
        table.add_row(
            row.what, row.vidray, row.peer, f"{row.ratio:.2f}", f"{sign} {row.target:g}", verdict
        )
    console.print(table)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"
