"""What `vidray simulate` simulates, each by itself and in whichever process."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from jobs.lab.simulate.scale import (
    FAMILIES,
    MOST_DRIVERS,
    Point,
    exact_job,
    hard_times,
    many_fleets,
    one_fleet,
    shared_job,
    world_of,
)
from jobs.lab.simulate.simulated_fleet import World
from jobs.lab.simulate.simulated_job import JobRun
from jobs.plan.hardware import find_card
from pipeline.video.windows import CHUNK_TOKENS

MOST_GPUS = 4_096
ONE_FLEET = {"7B": (1, 2, 4, 8, 16), "72B": (8, 16, 32, 64)}  # cards, behind one stream host
MANY_HOSTS = {"7B": (8, 16, 32), "72B": (32, 64, 128)}  # cards, behind several
CARDS_PER_HOST = {"7B": 4, "72B": 16}  # of these
GPUS_OF_FLEET = {"7B": 4, "72B": 16}  # of many: where one stream host is still enough
EXACT_GPUS = 64  # of many fleets that are simulated chunk by chunk, too


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSize:
    """A fleet, chunk by chunk."""

    family: str
    card: str
    gpus: int
    hosts: int = 1
    chunk_tokens: int = CHUNK_TOKENS
    death_s: float | None = None

    @property
    def world(self) -> World:
        return world_of(
            self.family,
            find_card(self.card),
            gpus=self.gpus,
            hosts=self.hosts,
            chunk_tokens=self.chunk_tokens,
            death_s=self.death_s,
        )

    def run(self) -> Point:
        return one_fleet(self.world, gpus=self.gpus)

    def __str__(self) -> str:
        more = f", {self.hosts} stream hosts" * (self.hosts > 1)
        more += f", chunks of {self.chunk_tokens:,} tokens" * (self.chunk_tokens != CHUNK_TOKENS)
        more += f", a decoder dies every {self.death_s} s" * (self.death_s is not None)
        return f"{self.family} on {self.gpus:,} GPU{'s' * (self.gpus > 1)}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSize:
    """So many drivers on one job, each with a fleet like this one.

    how: the fleets as places; each chunk by chunk; as places while all goes wrong.
    """

    fleet: FleetSize
    drivers: int
    how: Literal["as places", "chunk by chunk", "in hard times"] = "as places"

    def run(self, fleet: Point) -> JobRun:
        if self.how == "chunk by chunk":
            return exact_job(self.fleet.world, self.drivers)
        return (shared_job if self.how == "as places" else hard_times)(fleet, self.drivers)

    def __str__(self) -> str:
        drivers = f"{self.drivers} driver{'s' * (self.drivers > 1)}"
        return f"a job of {drivers} with {self.fleet} each, {self.how}"


class Simulated(Protocol):
    """What came of each size."""

    def point(self, size: FleetSize) -> Point: ...
    def job(self, size: JobSize) -> JobRun: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of one family, up to so many cards."""

    family: str
    card: str
    most_gpus: int

    @property
    def single(self) -> list[FleetSize]:
        return [self._fleet(gpus) for gpus in ONE_FLEET[self.family] if gpus <= self.most_gpus]

    @property
    def hosts(self) -> list[FleetSize]:
        """The first has one, which is enough."""
        per_host = CARDS_PER_HOST[self.family]
        every = [per_host, *MANY_HOSTS[self.family]]
        return [self._fleet(gpus, gpus // per_host) for gpus in every if gpus <= self.most_gpus]

    @property
    def fleets(self) -> list[FleetSize]:
        return list(dict.fromkeys([*self.single, *self.hosts]))

    @property
    def of_many(self) -> FleetSize:
        return self._fleet(GPUS_OF_FLEET[self.family])

    @property
    def many(self) -> dict[int, JobSize]:
        """By cards."""
        first = self.of_many.gpus
        return {
            gpus: JobSize(fleet=self.of_many, drivers=min(gpus // first, MOST_DRIVERS))
            for gpus in _doubled(first, self.most_gpus)[::2]
        }

    @property
    def both_ways(self) -> tuple[JobSize, JobSize]:
        places = JobSize(fleet=self.of_many, drivers=EXACT_GPUS // self.of_many.gpus)
        return places, replace(places, how="chunk by chunk")

    def _fleet(self, gpus: int, hosts: int = 1) -> FleetSize:
        return FleetSize(family=self.family, card=self.card, gpus=gpus, hosts=hosts)


def sizes_of(card: str, most_gpus: int) -> list[Sizes]:
    """Of each family that has a replica on so many cards."""
    return [
        Sizes(family=family, card=card, most_gpus=most_gpus)
        for family, gpus in FAMILIES.items()
        if gpus <= most_gpus
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Videos a second. single: one fleet behind one stream host; hosts: behind several, one for
    each CARDS_PER_HOST; many: ever more fleets. jobs: those of `many`, by number of drivers.
    """

    single: Sequence[Point]
    hosts: Sequence[Point]
    many: Sequence[Point]
    jobs: Mapping[int, JobRun]

    @classmethod
    def of(cls, sizes: Sizes, made: Simulated) -> "Curves":
        single = [made.point(size) for size in sizes.single]
        last = single[-1]
        more = []
        if last.gpus == ONE_FLEET[sizes.family][-1]:  # full: more cards change nothing
            further = _doubled(2 * last.gpus, sizes.most_gpus)
            more = [replace(last, gpus=gpus) for gpus in further]
        jobs = {size.drivers: made.job(size) for size in sizes.many.values()}
        return cls(
            single=[*single, *more],
            hosts=[made.point(size) for size in sizes.hosts],
            many=[
                many_fleets(made.point(size.fleet), jobs[size.drivers], gpus=gpus)
                for gpus, size in sizes.many.items()
            ],
            jobs=jobs,
        )


def _doubled(first: int, last: int) -> list[int]:
    def every() -> Iterator[int]:
        gpus = first
        while gpus <= last:
            yield gpus
            gpus *= 2

    return list(every())
