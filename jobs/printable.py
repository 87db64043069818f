"""What others wrote, on its way to a terminal: file names, models, stores, and errors of theirs."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """One line without control characters, which could do anything to a terminal."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else REPLACEMENT for char in line)


def printable_lines(text: str) -> str:
    """The same of a text of several lines, or of a piece of one."""
    return "".join(char if char.isprintable() or char in "\n\t" else REPLACEMENT for char in text)
