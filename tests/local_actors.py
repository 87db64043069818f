"""Actor classes in this process: called as through Ray's handles, without Ray or its clock."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any


def plain(actor_class: Any) -> Any:
    """The class below @ray.remote."""
    return actor_class.__ray_metadata__.modified_class


class LocalHandle:
    """Calls of an actor's methods are tasks here; an argument that is a reference is waited for."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> "LocalMethod":
        return LocalMethod(getattr(self.actor, name))


class LocalMethod:
    def __init__(self, method: Any, *, is_streaming: bool = False) -> None:
        self._method = method
        self._num_returns = getattr(method, "__ray_num_returns__", 1)
        self._is_streaming = is_streaming

    def options(self, *, num_returns: str) -> "LocalMethod":
        return LocalMethod(self._method, is_streaming=num_returns == "streaming")

    def remote(self, *arguments: Any) -> Any:
        if self._is_streaming:
            return self._stream(*arguments)
        answer = asyncio.ensure_future(self._call(*arguments))
        if self._num_returns == 1:
            return answer
        return [asyncio.ensure_future(_item(answer, n)) for n in range(self._num_returns)]

    async def _call(self, *arguments: Any) -> Any:
        ready = [await each if isinstance(each, asyncio.Future) else each for each in arguments]
        return await self._method(*ready)

    async def _stream(self, *arguments: Any) -> AsyncIterator["asyncio.Future[Any]"]:
        async for item in self._method(*arguments):
            reference = asyncio.get_running_loop().create_future()
            reference.set_result(item)
            yield reference


async def _item(answer: "asyncio.Future[Any]", number: int) -> Any:
    return (await answer)[number]
