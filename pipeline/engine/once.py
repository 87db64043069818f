"""Work that is done once, whoever waits for it and whoever gives up waiting."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Once(Generic[Result]):
    """Call it as often as wanted: the first call does the work, and all have what came of it.

    Of work that was handed to an executor and given up nobody can tell whether it goes on or never
    begins. Handed over again, it is done in either case, and once.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._turn = threading.Lock()
        self._done: Future[Result] = Future()

    def __call__(self) -> Result:
        """The result, or the error that the work raised."""
        with self._turn:
            if not self._done.done():
                try:
                    self._done.set_result(self._work())
                except BaseException as error:  # noqa: BLE001 - raised below, to every caller
                    self._done.set_exception(error)
        return self._done.result()
