"""What an actor loads before it is ready: within a limit, and whoever failed first is named."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any, TypeVar

from ray import ObjectRef
from ray.exceptions import RayError

from pipeline.errors import Transient

Value = TypeVar("Value")
CAUSE_S = 10.0  # a rank fails soon after the one it waited for; that one's word may still come


def loaded(
    load: Callable[[], Value], *, start_s: float, others: Sequence["ObjectRef[Any]"] = ()
) -> Value:
    """What `load` returns, in a thread of its own, which is left alone after start_s.

    others: calls that return when the other ranks have loaded, from the second one on. errors:
    Transient names the first of them that failed, or who was not ready in time; load's own only if
    none of them failed, since a rank whose peer is gone fails too, and not with the cause.
    """
    own = _in_a_thread(load)
    waiting: list[Future[Any]] = [each.future() for each in others]
    wait([own, *waiting], timeout=start_s, return_when=FIRST_EXCEPTION)
    if own.done() and own.exception() is not None:
        wait(waiting, timeout=CAUSE_S, return_when=FIRST_EXCEPTION)
    for rank, each in enumerate(waiting, start=1):
        if each.done() and (error := each.exception()) is not None:
            raise Transient(f"rank {rank} cannot start: {reason_of(error)}") from error
    for rank, each in enumerate((own, *waiting)):
        if not each.done():
            whose = f"rank {rank}" if others else "it"
            raise Transient(f"{whose} has not loaded after {start_s:g} s (start_s)")
    return own.result()


def reason_of(error: BaseException) -> str:
    """In one line. Ray's own errors end with the line that an actor's constructor failed with."""
    if isinstance(error, RayError):
        return str(error).strip().rpartition("\n")[2]
    return repr(error)


def _in_a_thread(load: Callable[[], Value]) -> "Future[Value]":
    """A daemon's, unlike an executor's: one that hangs keeps no process from its end."""
    done: Future[Value] = Future()

    def work() -> None:
        try:
            done.set_result(load())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            done.set_exception(error)

    threading.Thread(target=work, name="loading", daemon=True).start()
    return done
