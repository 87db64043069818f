"""All the actors of one deployment, and the door to them: a video in, its record out."""

import asyncio
import itertools
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ray.exceptions import ActorUnavailableError, RayActorError

from actors.calls import Handle
from actors.clients import FrameReaderClient
from actors.fleet_session import FleetSession
from actors.host_client import StreamHostClient
from actors.pools import Pools
from actors.profile import Profile
from actors.ray_private import life_of
from actors.starting import reason_of
from pipeline.errors import CallLost, Outage, Transient
from pipeline.events import Listener, ignore
from pipeline.pool import Pool
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.threads import in_thread
from pipeline.video.confinement import MEASURES
from pipeline.video.source import Source

PROGRESS_S = 2.0  # between two words of who is still waited for
FIRST_PAUSE_S = 0.25  # before the second attempt; each is twice as long as the one before
LAST_PAUSE_S = 4.0
# Where a call was lost and nobody died, nothing speaks against the video.
MAX_LOST_CALLS = 10  # for each attempt that the profile allows
Value = TypeVar("Value")


class Fleet:
    """Made by `start_fleet` of actors/launch.py."""

    def __init__(self, pools: Pools, hosts: Sequence[Handle], profile: Profile) -> None:
        self.pools = pools
        self.hosts = tuple(hosts)
        self._profile = profile
        self._hosts = Pool([StreamHostClient(host, stall_s=profile.stall_s) for host in hosts])
        self._room = asyncio.Semaphore(profile.videos_in_flight)
        self._is_started = False
        self._num_done = 0  # videos that got through, with whatever record
        self._lives: tuple[int | None, ...] = ()
        self._num_deaths = 0  # of actors, as far as anybody looked

    async def starting(self) -> AsyncIterator[str]:
        """Yield what is still being waited for, and how long, until all have loaded.

        Transient if one cannot start, or takes longer than `start_s` once it has its place. Where
        others have the room, this waits until they leave it; one that is lost starts again.
        """
        roles = ("reader", "encoder", "decoder")
        pools = (self.pools.readers, self.pools.encoders, self.pools.decoders)
        waiting = {
            asyncio.ensure_future(_up(actor)): role
            for role, actors in zip((*roles, "stream host"), (*pools, self.hosts), strict=True)
            for actor in actors
        }
        started_s = time.monotonic()
        try:
            while waiting:
                roles_left = ", ".join(dict.fromkeys(waiting.values()))
                yield f"{roles_left} ({time.monotonic() - started_s:.0f} s)"
                ready, _ = await asyncio.wait(
                    waiting, timeout=PROGRESS_S, return_when=asyncio.FIRST_COMPLETED
                )
                answers = [(waiting.pop(answer), answer.exception()) for answer in ready]
                for role, error in answers:
                    if isinstance(error, RayActorError):
                        raise Transient(f"a {role} cannot start: {reason_of(error)}") from error
                    if error is not None:
                        raise error
        finally:
            for answer in waiting:
                answer.cancel()
        await self._count_deaths()
        self._is_started = True

    async def sandbox(self) -> tuple[str, ...]:
        """The measures of pipeline/video/confinement.py that hold decoders on every reader."""
        readers = (
            FrameReaderClient(each, stall_s=self._profile.stall_s) for each in self.pools.readers
        )
        held = await asyncio.gather(*(self.attempt(reader.sandbox) for reader in readers))
        return tuple(measure for measure in MEASURES if all(measure in each for each in held))

    async def require_seen(self, file: Path) -> None:
        """SourceAway names the first node whose reader does not see this file as we do."""
        source = Source(uri=str(file), path=file, size_bytes=file.stat().st_size)
        stall_s = self._profile.stall_s
        readers = (FrameReaderClient(each, stall_s=stall_s) for each in self.pools.readers)
        looks = (self.attempt(partial(reader.look, source)) for reader in readers)
        await asyncio.gather(*looks)

    async def analyse(
        self, source: Source, tasks: Tasks, *, video_id: str, listener: Listener = ignore
    ) -> Record:
        """Do all tasks on one video; waits for its turn. Events may repeat after a loss."""
        async with self._room:
            num_done = self._num_done

            async def run() -> Record:
                with self._hosted() as host:
                    return await host.analyse(source, tasks, video_id, listener)

            try:
                record = await self.attempt(run)
            except Outage:
                raise
            except Transient as error:
                if self._num_done == num_done:  # nobody gets through: it is not this video
                    raise
                reason = str(error)

                async def refuse() -> Record:
                    with self._hosted() as host:
                        return await host.refusal(source, tasks, video_id, reason)

                return await self.attempt(refuse)
            self._num_done += 1
            return record

    def session(self, source: Source) -> FleetSession:
        """A video that stays open for many questions. Use as `async with`."""
        host = self._hosts.least_loaded(load=0).member  # each in its turn
        return FleetSession(host, self.attempt, source)

    @contextmanager
    def _hosted(self) -> Iterator[StreamHostClient]:
        """The stream host with the fewest videos; who fails is passed by until it answers."""
        berth = self._hosts.least_loaded(load=1)
        try:
            with berth.calling() as host:
                yield host
        finally:
            berth.give_back()

    async def missing(self) -> tuple[str, ...]:
        """The stages for which no actor is up, for now or for good."""
        pools = self.pools
        stages = {
            "stream host": self.hosts,
            "reader": pools.readers,
            "encoder": pools.encoders,
            "decoder": pools.decoders,
        }

        def look() -> tuple[str, ...]:
            return tuple(
                stage
                for stage, actors in stages.items()
                if all(life_of(actor) is None for actor in actors)
            )

        return await in_thread(look)

    async def attempt(self, run: Callable[[], Awaitable[Value]]) -> Value:
        """What a run returns that lost nothing; Transient after `max_attempts` that lost an actor.

        The only place that tries again: what runs has no side effects.
        """
        if not self._is_started:  # who loads a model for minutes does not answer, and is not lost
            async for _ in self.starting():
                pass
        most, num_fatal = self._profile.max_attempts, 0
        for number in itertools.count(1):
            num_deaths = self._num_deaths
            try:
                return await run()
            except Transient as error:
                await self._count_deaths()
                is_lost_call = isinstance(error, CallLost) and self._num_deaths == num_deaths
                num_fatal += not is_lost_call
                if num_fatal >= most:
                    raise Transient(f"{num_fatal} attempts, then: {error}") from error
                if number >= MAX_LOST_CALLS * most:
                    raise Outage(f"{number} attempts, then: {error}") from error
                await asyncio.sleep(min(FIRST_PAUSE_S * 2 ** (number - 1), LAST_PAUSE_S))
                await self._until_recovered(error)
        raise AssertionError("unreachable")

    async def _count_deaths(self) -> None:
        """Look whether an actor has died, or is away, since anybody looked."""
        pools = self.pools
        actors = (*self.hosts, *pools.readers, *pools.encoders, *pools.decoders)
        lives = await in_thread(lambda: tuple(map(life_of, actors)))
        self._num_deaths += None in lives or lives != (self._lives or lives)
        self._lives = lives

    async def _until_recovered(self, loss: Transient) -> None:
        recover_s = self._profile.recover_s
        try:
            async with asyncio.timeout(recover_s):
                await _first(host.all_ready() for host in self._hosts.members)
        except TimeoutError:
            reason = f"nobody came back for a stage within {recover_s:g} s, after: {loss}"
            raise Outage(reason) from loss


async def _first(works: Iterable[Awaitable[None]]) -> None:
    """Return when one is done, and give up the others."""
    waiting = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            await each
    finally:
        for each in waiting:
            each.cancel()


async def _up(actor: Any) -> None:
    """Return once it answers."""
    while True:
        try:
            await asyncio.wrap_future(actor.process_id.remote().future())
        except ActorUnavailableError:  # lost, and on its way back
            await asyncio.sleep(FIRST_PAUSE_S)
        else:
            return
