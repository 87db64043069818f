"""`vidray top`: a job or an endpoint at work, read from its metrics page again and again."""

import itertools
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobs.exits import Exit
from jobs.printable import printable
from jobs.sight.operator_view import Lookback, RowView, shown
from jobs.sight.samples import MetricSamples
from pipeline.errors import ConfigError, Transient

KEY = "VIDRAY_KEY"  # of an endpoint that wants one
TIMEOUT_S = 10.0
MAX_BYTES = 8 << 20


def run(address: str, *, every_s: float, looks: int | None, console: Console) -> int:
    """Show it until it ends, or Ctrl-C, or for so many looks; returns the exit code.

    Transient where nobody answers at first, ConfigError for an address that has no such page.
    """
    url = page_url(address)
    lookback = Lookback(fetch(url))
    with Live(console=console, auto_refresh=False) as live:
        for _ in itertools.count() if looks is None else range(looks):
            time.sleep(every_s)
            try:
                window_s, rows = lookback.look(fetch(url))
            except Transient:  # as a job that is done
                console.print("It has ended")
                break
            picture = _picture(url, window_s, rows)
            if console.is_terminal:
                live.update(picture, refresh=True)
            else:
                console.print(picture)
    return Exit.OK


def page_url(address: str) -> str:
    """Of PORT, HOST:PORT or a URL. ConfigError for anything else."""
    if address.isdigit():
        address = f"127.0.0.1:{address}"
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        is_page = parts.scheme in ("http", "https") and parts.port != 0
        is_page &= re.fullmatch(r"[!-~]+", url) is not None and bool(parts.hostname)
    except ValueError:  # brackets without an IPv6 address, a port that is no number or too large
        is_page = False
    if not is_page:
        raise ConfigError(f"ADDRESS must be PORT, HOST:PORT or http://..., got {address}")
    return url if parts.path.strip("/") else f"{url.rstrip('/')}/metrics"


def fetch(url: str, *, clock: Callable[[], float] = time.monotonic) -> MetricSamples:
    """One look. Transient where nobody answers, ConfigError for what is no page of vidray's."""
    key = os.environ.get(KEY)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - page_url: http(s) alone
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            page = answer.read(MAX_BYTES).decode(errors="replace")
        samples = MetricSamples.parse(page, at_s=clock())
    except urllib.error.HTTPError as error:
        hint = f"; set {KEY}" if error.code == 401 else ""
        raise ConfigError(f"{url} answers {error.code}{hint}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        why = getattr(reason, "strerror", None) or reason
        raise Transient(f"nobody answers at {url}: {why}") from error
    except ValueError as error:
        raise ConfigError(f"{url} is no metrics page") from error
    if not any(name.startswith("vidray_") for name in samples.series):
        raise ConfigError(f"{url} is no metrics page of vidray's")
    return samples


def _picture(url: str, window_s: float, rows: Sequence[RowView]) -> Group:
    tables = [_table(row) for row in rows]
    return Group(Text(f"{printable(url)}, the last {window_s:.0f} s"), *tables)


def _table(row: RowView) -> Table:
    table = Table(box=None, title=row.title, title_justify="left", title_style="bold")
    table.add_column(no_wrap=True, style="dim", header_style="", min_width=20)
    table.add_column(overflow="fold")
    table.show_header = False
    for panel in row.panels:
        readings = (
            f"{printable(' '.join(reading.labels))} {shown(reading.value, panel.unit)}".strip()
            for reading in panel.readings
        )
        table.add_row(panel.title, Text(", ".join(readings)))
    return table
