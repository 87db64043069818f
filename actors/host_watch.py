"""Whether a stream host is still there for whom something is open."""

import asyncio

import ray
from ray.exceptions import ActorDiedError, RayError

from actors.calls import Handle
from actors.pools import NAMESPACE
from pipeline.threads import in_thread

PAUSE_S = 0.5  # between the loss of a call and the next one


async def until_gone(name: str) -> bool:
    """True when the host of this name is dead for good; False if Ray cannot tell of it.

    A call that takes long is lost at once when the host's process dies. Ray then starts the host
    again, which closes what it had before; or, its driver having ended too, says that it is dead
    and knows its name no more. One of both is not enough: Ray's control service may be away.
    """
    if not ray.is_initialized():  # to ask would start it
        return False
    try:
        host = await _found(name)
        while host is not None:
            if await _is_dead(host):
                host = await _found(name)  # or who has its name now
                if host is None:
                    return True
            await asyncio.sleep(PAUSE_S)
    except RayError:  # the lease goes on alone
        return False
    return False


async def _is_dead(host: Handle) -> bool:
    """After a long call, or at once when it is lost."""
    try:
        await host.live.remote()
    except ActorDiedError:
        return True
    except RayError:  # it may be on its way back
        return False
    return False


async def _found(name: str) -> Handle | None:
    try:
        # Of a cluster that ends meanwhile it never returns.
        host: Handle = await in_thread(ray.get_actor, name, namespace=NAMESPACE)
    except ValueError:
        return None
    return host
