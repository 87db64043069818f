"""Calls to actors that may be lost or hang: an answer comes, or Transient does."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol, TypeVar, cast

import ray
import torch
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from actors.ray_private import life_of
from pipeline.errors import CallLost, ConfigError, Transient, VidrayError
from pipeline.threads import in_thread

Result = TypeVar("Result")


class RemoteMethod(Protocol):
    """A method of an actor, as its handle has it."""

    def remote(self, *arguments: object) -> Any:
        """Call it: a reference to what it returns, several, or a stream of them."""

    def options(self, **options: object) -> "RemoteMethod":
        """The same method, called in another way."""


class Handle(Protocol):
    """An actor: Ray makes its handle's methods at run time. Only clients.py should call them."""

    def __getattr__(self, name: str) -> RemoteMethod: ...


RELOAD_PAUSE_S = 1.0  # between two tries to load what could not be loaded

_NO_MEMORY = (MemoryError, torch.OutOfMemoryError)
_log = logging.getLogger("vidray.actors")


async def answer_of(actor: Handle, call: Awaitable[Result], *, stall_s: float) -> Result:
    """The call's result, however long that takes an actor that is alive.

    One that does not answer a ping either is killed within stall_s and starts again: Transient.
    """
    answer: asyncio.Future[Result]
    if isinstance(call, ObjectRef):
        answer = asyncio.wrap_future(call.future())
    else:
        answer = asyncio.ensure_future(call)
    try:
        while not answer.done():
            await asyncio.wait({answer}, timeout=stall_s / 2)
            if not answer.done():
                await _require_alive(actor, patience_s=stall_s / 2)
        return await _translated(answer)
    finally:
        answer.cancel()


async def until_ready(actor: Handle, *, patience_s: float) -> bool:
    """Return when the actor answers, or when patience is at its end: whether it did."""
    deadline, delay_s = time.monotonic() + patience_s, 0.1
    while time.monotonic() < deadline:
        try:
            async with asyncio.timeout(patience_s):
                await _translated(actor.process_id.remote())
            return True
        except (Transient, TimeoutError):
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 2.0)
    return False


async def recover(actor: Handle, *, patience_s: float) -> bool:
    """Wait for an actor that was lost; whether it answers now.

    One that is up and silent so long is killed, to start again: to a process that hangs before
    anybody had a connection, every call fails soon, so that `answer_of` never finds it silent. One
    that still loads its model is not up.
    """
    life = await in_thread(life_of, actor)
    if await until_ready(actor, patience_s=patience_s):
        return True
    if life is not None and life == await in_thread(life_of, actor):
        restart(actor)
    return False


def restart(actor: Handle) -> None:
    """Kill an actor; Ray starts it again."""
    ray.kill(cast("ActorHandle[Any]", actor), no_restart=False)


@contextmanager
def loading() -> Iterator[None]:
    """Around what an actor's constructor loads.

    An error of a constructor is final for Ray. At the first start it is told to whoever starts the
    fleet; after a restart, when it had loaded before, the process ends instead and Ray tries again:
    the folder or the disk may come back.
    """
    try:
        yield
    except (OSError, ConfigError, Transient) as error:
        if ray.get_runtime_context().was_current_actor_reconstructed:
            time.sleep(RELOAD_PAUSE_S)
            end_process(error)
        raise


def end_process(reason: BaseException) -> NoReturn:
    """End this actor at once, whatever its threads hang in; Ray starts it again."""
    _log.error("this process ends, to start again: %r", reason, exc_info=reason)
    os._exit(1)


async def _require_alive(actor: Handle, *, patience_s: float) -> None:
    try:
        async with asyncio.timeout(patience_s):
            await _translated(actor.process_id.remote())
    except TimeoutError:
        restart(actor)
        raise Transient(f"an actor was silent for {2 * patience_s:g} s") from None


async def _translated(call: Awaitable[Result]) -> Result:
    """The call's result; our own errors arrive as themselves, losses as Transient."""
    try:
        return await call
    except RayTaskError as error:
        if isinstance(error.cause, VidrayError):
            raise error.cause from None
        if isinstance(error.cause, (RayError, *_NO_MEMORY)):
            raise Transient(f"lost on the way: {type(error.cause).__name__}") from error
        raise
    except ActorUnavailableError as error:
        raise CallLost(f"lost on the way: {type(error).__name__}") from error
    except RayError as error:
        raise Transient(f"lost on the way: {type(error).__name__}") from error
