"""All the actors of one deployment, and the door to them: a video in, its record out."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import ray
from ray.exceptions import RayActorError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.calls import Handle
from actors.cluster import connected
from actors.fleet_session import FleetSession
from actors.frame_reader import FrameReaderActor
from actors.host_client import StreamHostClient
from actors.language_decoder import LanguageDecoderActor
from actors.pools import PoolNames, Pools
from actors.profile import Profile
from actors.stream_host import StreamHostActor
from actors.vision_encoder import VisionEncoderActor
from pipeline.config import DecodeLimits
from pipeline.errors import Transient
from pipeline.events import Listener, ignore
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.reader import Reader
from pipeline.video.source import Source

FIRST_PAUSE_S = 0.25  # before the second attempt; each is twice as long as the one before
Value = TypeVar("Value")


class Fleet:
    """Made by `start_fleet`."""

    def __init__(self, pools: Pools, host: Handle, profile: Profile) -> None:
        self.pools = pools
        self.host = host
        self._profile = profile
        self._host = StreamHostClient(host, stall_s=profile.stall_s)
        self._room = asyncio.Semaphore(profile.videos_in_flight)
        self._is_started = False
        self._num_done = 0  # videos that got through, with whatever record

    async def starting(self) -> AsyncIterator[str]:
        """Yield what is still being waited for, until every actor has loaded what it works with.

        Transient if one cannot start. On a cluster without room this waits until there is some.
        """
        roles = ("reader", "encoder", "decoder")
        pools = (self.pools.readers, self.pools.encoders, self.pools.decoders)
        waiting = {
            asyncio.wrap_future(actor.process_id.remote().future()): role
            for role, actors in zip((*roles, "stream host"), (*pools, [self.host]), strict=True)
            for actor in actors
        }
        try:
            while waiting:
                yield ", ".join(dict.fromkeys(waiting.values()))
                ready, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                answers = [(waiting.pop(answer), answer.exception()) for answer in ready]
                for role, error in answers:
                    if isinstance(error, RayActorError):
                        reason = str(error).strip().rpartition("\n")[2]
                        raise Transient(f"a {role} cannot start: {reason}") from error
                    if error is not None:
                        raise error
        finally:
            for answer in waiting:
                answer.cancel()
        self._is_started = True

    async def analyse(
        self, source: Source, tasks: Tasks, *, video_id: str, listener: Listener = ignore
    ) -> Record:
        """Do all tasks on one video; waits for its turn. Events may repeat after a loss."""
        async with self._room:
            num_done = self._num_done
            try:
                record = await self.attempt(
                    lambda: self._host.analyse(source, tasks, video_id, listener)
                )
            except Transient as error:
                if self._num_done == num_done:  # nobody gets through: it is not this video
                    raise
                return await self._host.refusal(source, tasks, video_id, str(error))
            self._num_done += 1
            return record

    def session(self, source: Source) -> FleetSession:
        """A video that stays open for many questions. Use as `async with`."""
        return FleetSession(self._host, self.attempt, source)

    async def attempt(self, run: Callable[[], Awaitable[Value]]) -> Value:
        """What a run returns that lost nothing; Transient after `max_attempts` that did.

        The only place that tries again: what runs has no side effects.
        """
        if not self._is_started:  # who loads a model for minutes does not answer, and is not lost
            async for _ in self.starting():
                pass
        for number in itertools.count(1):
            try:
                return await run()
            except Transient as error:
                if number >= self._profile.max_attempts:
                    raise Transient(f"{number} attempts, then: {error}") from error
                await asyncio.sleep(FIRST_PAUSE_S * 2 ** (number - 1))
                await self._until_recovered(error)
        raise AssertionError("unreachable")

    async def _until_recovered(self, loss: Transient) -> None:
        recover_s = self._profile.recover_s
        try:
            async with asyncio.timeout(recover_s):
                await self._host.all_ready()
        except TimeoutError:
            reason = f"nobody came back for a stage within {recover_s:g} s, after: {loss}"
            raise Transient(reason) from loss


@contextmanager
def start_fleet(
    checkpoint: Path,
    *,
    options: PlanOptions | None = None,
    profile: Profile | None = None,
    limits: DecodeLimits | None = None,
    reader: Reader = "pyav",
    address: str | None = None,
    exports_metrics: bool = False,
) -> Iterator[Fleet]:
    """Start every actor, and stop them all at the end.

    address: of a running cluster; without it Ray starts here, on loopback only, and stops too.
    exports_metrics: of a Ray that starts here, which takes longer then.
    """
    profile = profile or Profile()
    folder = str(checkpoint.resolve())
    planner = Planner(family=load_family(checkpoint), options=options or PlanOptions())
    with connected(profile, address=address, exports_metrics=exports_metrics), ExitStack() as stack:
        names = _names(profile)
        pools = Pools(
            readers=_readers(names.readers, profile, limits or profile.decode_limits, reader),
            encoders=_encoders(names.encoders, profile, folder),
            decoders=_decoders(names.decoders, profile, folder, stack),
        )
        host = StreamHostActor.options(num_cpus=0).remote(  # type: ignore[attr-defined]
            "host", names, folder, planner, profile
        )
        for actor in (host, *pools.readers, *pools.encoders, *pools.decoders):
            stack.callback(ray.kill, actor)
        yield Fleet(pools, host, profile)


def _names(profile: Profile) -> PoolNames:
    """Of this fleet alone: a cluster may have several."""
    fleet = f"vidray-{uuid4().hex[:8]}"

    def pool(role: str, size: int) -> tuple[str, ...]:
        return tuple(f"{fleet}/{role}-{number}" for number in range(size))

    return PoolNames(
        readers=pool("reader", profile.readers.num_actors),
        encoders=pool("encoder", profile.encoders.num_actors),
        decoders=pool("decoder", profile.decoders.num_replicas),
    )


def _readers(
    names: Sequence[str], profile: Profile, limits: DecodeLimits, reader: Reader
) -> tuple[Handle, ...]:
    pool = profile.readers
    limits = replace(limits, ahead_bytes=pool.ahead_bytes)
    actor: Any = FrameReaderActor
    return tuple(
        actor.options(name=name, num_cpus=pool.num_cpus).remote(
            limits, reader, pool.videos_per_actor
        )
        for name in names
    )


def _encoders(names: Sequence[str], profile: Profile, folder: str) -> tuple[Handle, ...]:
    pool = profile.encoders
    place: dict[str, Any] = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus}
    actor: Any = VisionEncoderActor
    return tuple(actor.options(name=name, **place).remote(folder, profile) for name in names)


def _decoders(
    names: Sequence[str], profile: Profile, folder: str, stack: ExitStack
) -> tuple[Handle, ...]:
    """The replicas' leaders, each in a placement group with room for its followers."""
    pool = profile.decoders
    leaders = []
    for name in names:
        bundle = {"CPU": pool.num_cpus, "GPU": pool.num_gpus}
        group = placement_group(
            [{name: amount for name, amount in bundle.items() if amount}] * pool.tensor_parallel
        )
        stack.callback(remove_placement_group, group)
        place = PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        )
        actor = LanguageDecoderActor.options(  # type: ignore[attr-defined]
            name=name, num_cpus=pool.num_cpus, num_gpus=pool.num_gpus, scheduling_strategy=place
        )
        leaders.append(actor.remote(folder, profile))
    return tuple(leaders)
