"""Actor classes in this process: called as through Ray's handles, without Ray or its clock."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import ray

from actors import frame_reader, language_decoder, metrics, vision_encoder
from actors.pools import Pools
from actors.profile import Profile
from actors.stream_host import RayFlow, ray_flow
from pipeline.config import DecodeLimits
from pipeline.span import Process
from pipeline.video.plan import Planner


def plain(actor_class: Any) -> Any:
    """The class below @ray.remote."""
    return actor_class.__ray_metadata__.modified_class


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """Let actors be made here: to ask Ray for their names would start it, which is refused."""

    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("an actor in this process started Ray")

    patch.setattr(ray, "init", refuse)
    for module in (frame_reader, language_decoder, metrics, vision_encoder):
        patch.setattr(module, "process_of_actor", lambda: Process.here("here"))


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


def flow_over_actors(checkpoint: Path, *, planner: Planner, profile: Profile) -> RayFlow:
    """A flow over one actor of each kind."""
    folder = str(checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        actors = (
            plain(frame_reader.FrameReaderActor)(DecodeLimits(), "pyav", 1),
            plain(vision_encoder.VisionEncoderActor)(folder, profile),
            plain(language_decoder.LanguageDecoderActor)(folder, profile),
        )
    pools = Pools(*((LocalHandle(actor),) for actor in actors))
    return ray_flow(pools, checkpoint, owner="host", planner=planner, profile=profile)
