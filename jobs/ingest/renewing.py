"""A sign of life for as long as somebody is at a tick: its claim, said again and again."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from pipeline.errors import VidrayError

RENEWALS_PER_LEASE = 4  # so clocks may differ by most of a lease, or three be lost
LAST_S = 5.0  # that one under way is waited for

Renew = Callable[[], bool]  # False: there is nothing to renew any more
Renewing = Callable[[Renew, float], AbstractContextManager[None]]


@contextmanager
def in_background(renew: Renew, every_s: float) -> Iterator[None]:
    """Call it every so often while entered, in a thread. A store that is away is tried again."""
    is_over = threading.Event()

    def keep() -> None:
        is_wanted = True
        while is_wanted and not is_over.wait(every_s):
            with suppress(VidrayError):
                is_wanted = renew()

    thread = threading.Thread(target=keep, daemon=True, name="renewing")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(LAST_S)
