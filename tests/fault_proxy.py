"""A hurt store whose harms are used up one by one, to see what a client makes of each."""

import threading
from collections import Counter

from jobs.lab.soak.hurt_store import Harm, HurtStore


class FaultProxy(HurtStore):
    """Forwards to an S3 server on 127.0.0.1:port, but for the requests that were told off."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.rule = self._next_harm
        self.done: Counter[Harm] = Counter()  # harms that happened
        self._pending: list[tuple[Harm, str, str]] = []
        self._lock = threading.Lock()

    def inject(self, harm: Harm, *, method: str, times: int = 1, key: str = "") -> None:
        """Hurt the next `times` requests of this method, for paths with `key` in them."""
        with self._lock:
            self._pending += [(harm, method, key)] * times

    def _next_harm(self, method: str, path: str) -> Harm | None:
        with self._lock:
            for index, (harm, wanted, key) in enumerate(self._pending):
                if wanted == method and key in path:
                    del self._pending[index]
                    self.done[harm] += 1
                    return harm
        return None
