"""What vidray's own parts have to say while a command works: on its console, above what moves."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from jobs.printable import printable


@contextmanager
def messages_on(console: Console, *, level: int = logging.WARNING) -> Iterator[None]:
    """Show what the loggers below "vidray" say, from this level on, a line each, while entered.

    INFO is left out: it is what stands on the screen already.
    """
    handler = _ConsoleHandler(console, level)
    logger = logging.getLogger("vidray")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self.addFilter(lambda record: record.levelno != logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(Text(printable(record.getMessage())), soft_wrap=True)
