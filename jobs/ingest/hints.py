"""Hints that something may be new, for whoever hears of it first, such as the endpoint.

Covered: floods (one entry until somebody has looked, one look at the journal in a while), forgeries
(nothing of a hint is kept, a tick lists the source itself), losses (the calendar's next tick).
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from jobs.ingest.ingest_commands import open_output
from jobs.ingest.schedules import load_schedules
from pipeline.life import here
from pipeline.store.catalogue import Catalogue
from pipeline.store.journal import EntryKind, JournalEntry
from pipeline.store.objects import ObjectStore

PAUSE_S = 5.0  # between looks at one journal


class Hints:
    """Writes them into the journals of these outputs, by the schedules' names. Safe to share."""

    def __init__(
        self, stores: Mapping[str, ObjectStore], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stores = stores
        self._clock = clock
        self._looked_s: dict[str, float] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, file: Path) -> "Hints":
        """ConfigError for a file of schedules that is wrong."""
        return cls({name: open_output(each) for name, each in load_schedules(file).items()})

    def __contains__(self, name: str) -> bool:
        return name in self._stores

    def give(self, name: str) -> bool:
        """False if it is one with another that nobody has followed yet."""
        with self._lock:
            now_s = self._clock()
            if now_s - self._looked_s.get(name, -PAUSE_S) < PAUSE_S:
                return False
            self._looked_s[name] = now_s
        catalogue = Catalogue(self._stores[name])
        while catalogue.state.hint is None:
            if catalogue.append(JournalEntry(kind=EntryKind.HINT, at_s=time.time(), by=here())):
                return True
        return False
