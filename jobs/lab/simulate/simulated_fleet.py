"""A fleet in virtual time: actors.fleet's own second tries over a real flow of simulated ports."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, TypeVar, cast
from unittest.mock import patch

from actors.fleet import Fleet
from actors.pools import Pools
from actors.profile import Profile
from jobs.lab.simulate.resources import Shared, Worker
from jobs.lab.simulate.simulated_ports import (
    CalledDecoder,
    CalledEncoder,
    CalledReader,
    Host,
    SimulatedReader,
    SimulatedTower,
)
from jobs.lab.simulate.simulated_rank import SimulatedRank, StepCost
from jobs.lab.simulate.virtual_time import VirtualLoop, run_virtually
from jobs.models import DEMO_MODEL
from jobs.plan.hardware import CORE, STEP_S, Card, Cost, Costs
from jobs.plan.operations import language_weights
from pipeline.analyse import analyse
from pipeline.config import ModelConfig
from pipeline.engine.engine import Engine
from pipeline.engine.rank import Rank
from pipeline.errors import Transient
from pipeline.events import Listener, ignore
from pipeline.flow import Flow
from pipeline.model.encoder import VisionEncoder
from pipeline.pool import Pool
from pipeline.prompts import Prompts
from pipeline.served_model import ServedModel
from pipeline.stages.encoding import EncodingStage
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.types import MediaInfo
from pipeline.video.family import Family
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.source import Source
from pipeline.video.windows import CHUNK_TOKENS

FETCHED_AHEAD = 2  # as jobs/batch/run.py has it
URGENT, ENCODING = 0, 5  # as precedence.py has it
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a fleet is simulated on.

    card: None where all stages share cores. cores: of that machine, in all. death_s: mean time
    between deaths of one decoder; None for none. load_s: that it takes to start again.
    """

    config: ModelConfig
    family: Family
    costs: Costs
    profile: Profile
    words: int
    card: Card | None = None
    cores: float = 2.0
    latency_s: float = 0.0
    chunk_tokens: int = CHUNK_TOKENS
    death_s: float | None = None
    load_s: float = 60.0
    seed: int = 0


class SimulatedFleet(Fleet):
    """What `start_fleet` would give, of a world. media: of every video, by its uri."""

    def __init__(
        self, world: World, media: Mapping[str, MediaInfo], options: PlanOptions, loop: VirtualLoop
    ) -> None:
        super().__init__(Pools((), (), ()), (), world.profile)
        self.world = world
        profile, costs = world.profile, world.costs
        is_shared = world.card is None
        num_units = 2 if is_shared else max(1, round(profile.readers.num_actors))
        speed = world.cores / num_units if is_shared else 1.0
        self.cores = Shared(num_units, speed=speed)
        self.cards = [self._card(world) for _ in range(profile.decoders.num_replicas)]
        self.callers = [
            Host(
                self.cores if is_shared else None,
                costs.host,
                words=world.words,
                latency_s=world.latency_s,
            )
            for _ in range(profile.stream_hosts)
        ]
        chance = random.Random(world.seed)  # noqa: S311 - the same deaths each time
        self.decoders = [
            MortalDecoder(partial_engine(world, shared, loop), world, chance)
            for shared in self.cards
        ]
        readers = [
            SimulatedReader(
                media, costs.reader, self.cores, num_at_once=profile.readers.videos_per_actor
            )
            for _ in range(profile.readers.num_actors)
        ]
        encoders = [
            self._encoder(world, number, loop) for number in range(profile.encoders.num_actors)
        ]
        model = _model(world)
        planner = Planner(family=world.family, options=options, chunk_tokens=world.chunk_tokens)

        def flow(number: int, caller: Host) -> Any:
            """Of one stream host, as PoolNames.turned has it."""

            def turned(members: Sequence[Any]) -> Sequence[Any]:
                first = len(members) * number // len(self.callers)
                return [*members[first:], *members[:first]]

            return Flow(
                model,
                readers=Pool([cast(Any, CalledReader(each, caller)) for each in turned(readers)]),
                encoders=Pool(
                    [cast(Any, CalledEncoder(each, caller)) for each in turned(encoders)]
                ),
                decoders=Pool(
                    [cast(Any, CalledDecoder(each, caller)) for each in turned(self.decoders)]
                ),
                planner=planner,
                owner=f"host-{number}",
                video_bytes=profile.video_bytes,
            )

        self._hosts = Pool(
            [
                cast(Any, _SimulatedHost(self, flow(number, caller)))
                for number, caller in enumerate(self.callers)
            ]
        )

    def _card(self, world: World) -> Shared:
        """Cores where there is no card. All cards of a replica are one: they work together."""
        return self.cores if world.card is None else Shared(1)

    def _encoder(self, world: World, number: int, loop: VirtualLoop) -> EncodingStage:
        tower = SimulatedTower(world.config, world.costs.encoder, loop.spend)
        ranks = world.profile.decoders.tensor_parallel
        shared = self.cards[(number // ranks) % len(self.cards)]
        # One of the replica's cards encodes, and the others wait for it only as far as they must.
        worker = Worker(shared, urgency=ENCODING, share=1 / ranks)
        return EncodingStage(cast(VisionEncoder, tower), thread=worker)

    async def starting(self) -> AsyncIterator[str]:
        self._is_started = True
        return
        yield ""

    async def _count_deaths(self) -> None:
        self._num_deaths = sum(each.num_deaths for each in self.decoders)


class _SimulatedHost:
    """Takes the place of StreamHostClient."""

    def __init__(self, fleet: SimulatedFleet, flow: Any) -> None:
        self._fleet, self._flow = fleet, flow

    async def analyse(
        self, source: Source, tasks: Tasks, video_id: str, listener: Listener
    ) -> Record:
        record = await analyse(source, tasks, self._flow, video_id=video_id, listener=listener)
        if self._fleet.world.card is None:
            world = self._fleet.world
            rest, words = world.costs.rest, world.words * tasks.num_requests
            await self._fleet.cores.use(rest.video_s + rest.word_s * words, urgency=URGENT)
        return record

    async def all_ready(self) -> None:
        await self._flow.ready()

    async def ready(self) -> bool:
        return True


class MortalDecoder:
    """A decoder that dies now and then, with all that it held, and starts again."""

    def __init__(self, new: Callable[[], Engine], world: World, chance: random.Random) -> None:
        self._new, self._world, self._chance = new, world, chance
        self._engine: Engine | None = new()
        self._up = asyncio.Event()
        self._up.set()
        self.num_deaths = 0
        if world.death_s is not None:
            self._dying = asyncio.get_running_loop().create_task(self._die(world.death_s))

    async def _die(self, death_s: float) -> None:
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / death_s))
            if self._engine is not None:
                self._engine.stop()
            self._engine, self.num_deaths = None, self.num_deaths + 1
            self._up.clear()
            await asyncio.sleep(self._world.load_s)
            self._engine = self._new()
            self._up.set()

    @property
    def _alive(self) -> Engine:
        if self._engine is None:
            raise Transient("lost on the way: a decoder died")
        return self._engine

    async def open(self, *told: Any) -> None:
        await self._alive.open(*told)

    async def prefill(self, *told: Any, **also: Any) -> Any:
        return await self._alive.prefill(*told, **also)

    async def ask(self, *told: Any, **also: Any) -> AsyncGenerator[Any, None]:
        async for delta in self._alive.ask(*told, **also):
            yield delta

    async def close(self, stream: Any) -> None:
        if self._engine is not None:
            await self._engine.close(stream)

    async def release(self, owner: str) -> None:
        return

    async def ready(self) -> bool:
        await self._up.wait()
        return True


def partial_engine(world: World, shared: Shared, loop: VirtualLoop) -> Callable[[], Engine]:
    """Makes engines of a world that work on these cards."""

    def new() -> Engine:
        rank = SimulatedRank(
            world.config,
            world.profile.decoders.limits,
            step_cost(world),
            words=world.words,
            spend=loop.spend,
        )
        gap_s = world.profile.decoders.gap_s if world.card is None else 0.0
        return Engine(cast(Rank, rank), gap_s=gap_s, thread=Worker(shared, urgency=URGENT))

    return new


def step_cost(world: World) -> StepCost:
    """Of a replica."""
    if world.card is None:
        return StepCost.of(world.costs.decoder)
    ranks = world.profile.decoders.tensor_parallel
    rate = world.card.bytes_per_s * ranks
    return StepCost(
        flop_s=1 / (world.card.flops_per_s * ranks),
        step_s=STEP_S,
        floor_s=2 * language_weights(world.config) / rate,
        kv_token_s=world.config.kv_bytes_per_token() / rate,
    )


def gpu_costs(card: Card) -> Costs:
    """What readers, towers and the host of such a fleet cost; decoders have a StepCost."""
    encoder = Cost(chunk_s=0.003, work_s=1 / card.flops_per_s)
    return replace(CORE, encoder=encoder, decoder=Cost(), origin="simulated")


def _model(world: World) -> ServedModel:
    """The prompts of vidray-demo, which comes with vidray; sizes of the world's model."""
    served = ServedModel.load(DEMO_MODEL)
    element_bytes = 4 if world.card is None else 2
    return replace(
        served,
        prompts=Prompts(served.prompts.layout, world.profile.decoders.limits),
        token_bytes=world.config.hidden_size * element_bytes,
        family=world.family,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRun:
    """What came of it. busy: shares of the time that somebody worked, by who.

    steady_per_s, held_s: videos a second, and how long one holds a place, by its uri, while all
    places are taken, without how it begins and ends; of a run of three times as many, at least.
    """

    num_videos: int
    num_failed: int
    seconds: float
    busy: Mapping[str, float]
    steady_per_s: float
    held_s: Mapping[str, float]
    num_calls: int
    num_deaths: int

    @property
    def videos_per_s(self) -> float:
        return self.num_videos / self.seconds


def simulate(
    world: World,
    media: Mapping[str, MediaInfo],
    sources: Sequence[str],
    tasks: Tasks,
    *,
    options: PlanOptions | None = None,
) -> SimulatedRun:
    """Send these videos, uris of `media`, through a fleet of the world."""
    loop = VirtualLoop()

    async def run() -> SimulatedRun:
        fleet = SimulatedFleet(world, media, options or PlanOptions(), loop)
        waiting, records = iter(enumerate(sources)), list[Record]()
        held: list[tuple[str, float]] = []  # in the order of their beginnings
        ends_s: list[float] = []
        num_places = world.profile.videos_in_flight + FETCHED_AHEAD

        async def work() -> None:
            for number, uri in waiting:
                held.append((uri, 0.0))
                source, began_s = Source(uri=uri, path=cast(Any, None)), loop.time()
                record = await fleet.analyse(source, tasks, video_id=str(number), listener=ignore)
                records.append(record)
                held[number] = uri, loop.time() - began_s
                ends_s.append(loop.time())

        await asyncio.gather(*(work() for _ in range(num_places)))
        seconds = loop.time()
        shares = {
            "stream host": sum(each.busy_s for each in fleet.callers)
            / (seconds * len(fleet.callers)),
            "readers": fleet.cores.busy_s / (seconds * fleet.cores.num_units),
            "GPUs": sum(card.busy_s for card in fleet.cards) / (seconds * len(fleet.cards)),
        }
        return SimulatedRun(
            num_videos=len(records),
            num_failed=sum(record.status != "ok" for record in records),
            seconds=seconds,
            busy=shares,
            steady_per_s=_steady(ends_s, num_places),
            held_s=_means(held) | _means(held[num_places:-num_places]),
            num_calls=sum(each.num_calls for each in fleet.callers),
            num_deaths=sum(each.num_deaths for each in fleet.decoders),
        )

    return virtually(run(), loop)


def _steady(ends_s: Sequence[float], num_places: int) -> float:
    """Videos a second, without the first ones and the last ones, as many as there are places."""
    middle = ends_s[num_places:-num_places]
    if len(middle) < num_places // 2:
        return len(ends_s) / ends_s[-1]
    return (len(middle) - 1) / (middle[-1] - middle[0])


def _means(held: Sequence[tuple[str, float]]) -> dict[str, float]:
    return {
        uri: fmean(seconds for each, seconds in held if each == uri)
        for uri in {each for each, _ in held}
    }


def virtually(work: Coroutine[Any, Any, Value], loop: VirtualLoop) -> Value:
    """Run with the monotonic clock of the whole process being the loop's."""
    with patch.object(time, "monotonic", loop.time):
        return cast(Value, run_virtually(work, loop))
