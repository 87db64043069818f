"""A line of a terminal: what matters most stands first, and what does not fit gives way."""

from collections.abc import Sequence


def fitted(cells: Sequence[str], *, width: int, between: str = ", ") -> str:
    """As many of the first cells as have room, each of them whole; the first one in any case."""
    line = "".join(cells[:1])
    for cell in cells[1:]:
        longer = f"{line}{between}{cell}"
        if len(longer) > width:
            break
        line = longer
    return line
