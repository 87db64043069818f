"""Makes batches ahead of the training loop, in one process of its own."""

import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from typing import TypeVar

Batch = TypeVar("Batch")
AHEAD = 12  # batches that may wait


def made_ahead(make: Callable[[int], Batch], start: int) -> Iterator[Batch]:
    """Yield make(start), make(start + 1), ... for ever, made in a child that stays ahead.

    The order is the index's, so a run that resumes at `start` sees what it would have seen.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    slots = context.Semaphore(AHEAD)
    child = context.Process(target=_make, args=(make, start, sender, slots), daemon=True)
    child.start()
    sender.close()
    try:
        while True:
            batch: Batch = receiver.recv()
            slots.release()
            yield batch
    finally:
        child.terminate()
        child.join()


def _make(
    make: "partial[Batch]", start: int, sender: Connection, slots: Semaphore
) -> None:  # pragma: no cover - runs in the child
    index = start
    while True:
        slots.acquire()
        sender.send(make(index))
        index += 1
