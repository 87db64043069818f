"""How much a command says of its work, and where: on the terminal, and in a log file.

What people see anyway is logged as INFO, what only --verbose shows as DEBUG; a warning of any part
of vidray is shown in any case.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from rich.console import Console

from jobs.console import console_of
from jobs.flags import build, flags_for, parameters_of, signed, typed
from jobs.messages import messages_on
from jobs.printable import printable, printable_lines
from jobs.sight.log_lines import JsonLines
from jobs.sight.metrics_address import host_and_port
from pipeline.errors import ConfigError
from pipeline.settings import Settings

LOG_LINE = "%(asctime)s %(levelname)-7s %(message)s"


class LogOptions(Settings):
    """What is said on standard error while a command works, and what of it is kept."""

    quiet: bool = Field(default=False, description="Say nothing but results and what went wrong.")
    verbose: bool = Field(
        default=False, description="Say more: every video, and each of its chunks."
    )
    log_file: Path | None = Field(
        default=None, description="Append what is said while working to this file, with the time."
    )
    log_json: bool = Field(
        default=False,
        description="Write --log-file as JSON lines, with the ids of job, part and video.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.quiet and self.verbose:
            raise ValueError("{quiet} and {verbose} exclude each other")
        if self.log_json and self.log_file is None:
            raise ValueError("{log_json} needs {log_file}")
        return self


class ProgressOptions(LogOptions):
    """The same, and what others are told of it."""

    otel: bool = Field(
        default=False,
        description="Send a trace of each video to the OpenTelemetry collector that "
        "OTEL_EXPORTER_OTLP_ENDPOINT names; needs vidray[otel].",
    )
    metrics: str | None = Field(
        default=None,
        description="Export numbers for Prometheus and vidray top while working, at [HOST:]PORT; "
        "0 is any free port, the host 127.0.0.1.",
    )

    @model_validator(mode="after")
    def _can_listen(self) -> Self:
        if self.metrics is not None:
            try:
                host_and_port(self.metrics)
            except ValueError as error:
                raise ValueError(f"{{metrics}} {error}") from error
        return self


def speaks(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the flags of LogOptions, and as `progress`, if it has one, their console.

    What `takes` gives it comes first.
    """
    own = {each.name: each for each in parameters_of(command)}
    has_progress = own.pop("progress", None) is not None

    def run(*options: Settings, **given: Any) -> int:
        with said(build(LogOptions, typed(LogOptions, given))) as console:
            more = {"progress": console} if has_progress else {}
            return command(*options, **given, **more)

    return signed(run, command, [*own.values(), *flags_for(LogOptions)])


@contextmanager
def said(options: LogOptions) -> Iterator[Console]:
    """The console that progress goes to; while entered, logs go where the options say."""
    with ExitStack() as stack:
        console = console_of(stderr=True)
        if options.quiet:
            console = console_of(file=stack.enter_context(open(os.devnull, "w", encoding="utf-8")))
        logger = logging.getLogger("vidray")
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.DEBUG)
        level = logging.DEBUG if options.verbose else logging.WARNING
        stack.enter_context(messages_on(console, level=level))
        if options.log_file is not None:
            handler = _file_handler(options, options.log_file, console)
            logger.addHandler(handler)
            stack.callback(handler.close)
            stack.callback(logger.removeHandler, handler)
        yield console


def _file_handler(options: LogOptions, path: Path, console: Console) -> logging.Handler:
    try:
        handler = _LogFile(path, console)
    except OSError as error:
        raise ConfigError(f"--log-file {path}: {error.strerror}") from error
    handler.setLevel(logging.DEBUG if options.verbose else logging.INFO)
    handler.setFormatter(JsonLines() if options.log_json else _LogLines(LOG_LINE))
    return handler


class _LogLines(logging.Formatter):
    """No name of a file makes a line of its own, or does anything to a terminal that shows it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return printable_lines(super().formatException(ei))


class _LogFile(logging.FileHandler):
    """Added to until it cannot be: that is said once, and ends nobody's work."""

    def __init__(self, path: Path, console: Console) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._console = console

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        reason = str(sys.exc_info()[1])
        logging.getLogger("vidray").removeHandler(self)
        self._console.print(f"--log-file {self.baseFilename} ends here: {reason}", soft_wrap=True)

    def close(self) -> None:
        with suppress(OSError):  # what could not be written was told
            super().close()
