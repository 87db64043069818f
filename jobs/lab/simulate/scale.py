"""One fleet and many of them, from one card to thousands, and what bends first.

A fleet is simulated chunk by chunk. Of many fleets on one job each is so many places, and a video
holds one for as long as the fleet was found to take, so that thousands of cards are simulated
driver by driver; both are compared where both run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from random import Random

import numpy as np

from actors.profile import DecoderPool, EncoderPool, Profile, ReaderPool
from jobs.lab.simulate.simulated_fleet import FETCHED_AHEAD, World, gpu_costs, simulate
from jobs.lab.simulate.simulated_job import (
    FAILED_S,
    FAR_S,
    GONE,
    Downtime,
    Driver,
    JobRun,
    simulate_job,
)
from jobs.plan.estimate import GET_LIMIT, REQUESTS_PER_VIDEO
from jobs.plan.hardware import FETCH_BYTES_PER_S, Card
from pipeline.config import MIB
from pipeline.errors import FailureCode
from pipeline.families.qwen2_vl.published import SIZES
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.tasks.tasks import Tasks
from pipeline.types import MediaInfo
from pipeline.video.windows import CHUNK_TOKENS

WORDS = 64  # of a caption
CORES_PER_GPU = 20
VIDEOS_PER_GPU = 24  # in flight, and twice that through each simulation
BYTES_PER_S = 250_000  # of video: 720p at 2 Mbit/s
FLEET_WAVES = 3  # of its places' videos, through a fleet
WAVES = 4  # of its places' videos, through each driver of a simulated job
VIDEOS_PER_PART = 64  # as by default
HOUR_S = 3600.0
MOST_HOURS = 1_000_000
FAMILIES = {"7B": 1, "72B": 8}  # cards of a replica
MOST_DRIVERS = 256  # that are simulated on one job; more share it as they do
GONE_EVERY = 100  # videos, in hard times


@dataclass(frozen=True, slots=True)
class FleetKind:
    """Videos of one length, and how many of a hundred are of it."""

    seconds: float
    percent: int


ARCHIVE = (FleetKind(30, 45), FleetKind(120, 35), FleetKind(600, 19), FleetKind(36_000, 1))
MEAN_S = sum(kind.seconds * kind.percent for kind in ARCHIVE) / 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """So many cards. bottleneck: who was busiest, or whose limit was met first."""

    gpus: int
    fleets: int
    videos_per_s: float
    bottleneck: str
    shares: Mapping[str, float] = field(default_factory=dict)
    places: int = 1
    held_s: Mapping[str, float] = field(default_factory=dict)
    tail_s: float = 0.0  # of a job: while not all are busy

    @property
    def hours(self) -> float:
        """For a million hours of such video."""
        return (MOST_HOURS * HOUR_S / MEAN_S / self.videos_per_s + self.tail_s) / HOUR_S


def world_of(
    size: str,
    card: Card,
    *,
    gpus: int,
    hosts: int = 1,
    chunk_tokens: int = CHUNK_TOKENS,
    death_s: float | None = None,
) -> World:
    """A fleet of so many cards behind so many stream hosts."""
    ranks = FAMILIES[size]
    replicas = gpus // ranks
    profile = Profile(
        name="simulated",
        stream_hosts=hosts,
        device="cuda",
        dtype="bfloat16",
        readers=ReaderPool(num_actors=CORES_PER_GPU * gpus, num_cpus=1),
        encoders=EncoderPool(num_actors=gpus, num_gpus=0.1),
        decoders=DecoderPool(
            num_replicas=replicas,
            tensor_parallel=ranks,
            num_gpus=0.9,
            kv_tokens=20_000 * (VIDEOS_PER_GPU if ranks == 1 else 48),
        ),
        videos_in_flight=(VIDEOS_PER_GPU if ranks == 1 else 48 // ranks) * gpus,
        video_bytes=24 * MIB,
        object_store_bytes=24 * MIB * VIDEOS_PER_GPU * max(gpus, 8),
        max_attempts=10,
    )
    return World(
        config=SIZES[size],
        family=QWEN2_VL,
        costs=gpu_costs(card),
        profile=profile,
        words=WORDS,
        card=card,
        latency_s=0.001,
        chunk_tokens=chunk_tokens,
        death_s=death_s,
        load_s=30.0,
    )


def one_fleet(world: World, *, gpus: int) -> Point:
    """Chunk by chunk."""
    in_flight = world.profile.videos_in_flight
    run = simulate(world, MEDIA, _sources(FLEET_WAVES * in_flight), Tasks())
    # Short videos end first: in a short run, more of them a second than whoever is busiest can do.
    rate = min(run.steady_per_s, run.videos_per_s / max(run.busy.values()))
    if world.death_s is not None:  # nobody is busy all the time
        rate = run.videos_per_s
    places = in_flight + FETCHED_AHEAD
    mean_s = sum(run.held_s[str(kind.seconds)] * kind.percent for kind in ARCHIVE) / 100
    return Point(
        gpus=gpus,
        fleets=1,
        videos_per_s=rate,
        bottleneck=max(run.busy, key=run.busy.__getitem__),
        shares=run.busy,
        places=places,
        held_s={uri: held_s * places / mean_s / rate for uri, held_s in run.held_s.items()},
    )


def shared_job(fleet: Point, num_drivers: int) -> JobRun:
    """A job of so many drivers, each with a fleet like this one, as places."""
    return simulate_job(
        _sources(num_drivers * WAVES * fleet.places),
        [Driver(places=fleet.places, held_s=fleet.held_s)] * num_drivers,
        videos_per_part=VIDEOS_PER_PART,
    )


def exact_job(world: World, num_drivers: int) -> JobRun:
    """The same, each fleet chunk by chunk."""
    places = world.profile.videos_in_flight + FETCHED_AHEAD
    return simulate_job(
        _sources(num_drivers * WAVES * places),
        [Driver(world=world)] * num_drivers,
        media=MEDIA,
        videos_per_part=VIDEOS_PER_PART,
    )


def many_fleets(fleet: Point, job: JobRun, *, gpus: int) -> Point:
    """So many cards in fleets like this one, whose drivers share a job as those of this one do."""
    fleets = gpus // fleet.gpus
    drivers = min(fleets, MOST_DRIVERS)
    busy_s = job.work_s / (drivers * fleet.places)
    rate = job.num_videos / busy_s * fleets / drivers
    shares = {
        **fleet.shares,
        "store requests": rate * REQUESTS_PER_VIDEO / GET_LIMIT,
        "downloads": rate / fleets * MEAN_S * BYTES_PER_S / FETCH_BYTES_PER_S,
    }
    worst = max(shares, key=shares.__getitem__)
    return Point(
        gpus=gpus,
        fleets=fleets,
        videos_per_s=rate / max(1.0, shares[worst]),
        bottleneck=worst,
        shares=shares,
        tail_s=job.seconds - busy_s,
    )


def hard_times(fleet: Point, num_drivers: int) -> JobRun:
    """A job in which all goes wrong at once: drivers come late and die, stores and fleets fail
    everybody for minutes, one fleet for good, and some videos are gone.
    """
    steady = Driver(places=fleet.places, held_s=fleet.held_s)
    store = Downtime(begins_s=60.0, ends_s=300.0, code=FailureCode.SOURCE_UNREADABLE)
    cards = Downtime(begins_s=120.0, ends_s=240.0, code=FailureCode.WORKER_LOST)
    for_good = Downtime(begins_s=30.0, ends_s=FAR_S, code=FailureCode.WORKER_LOST)
    harms = cycle(
        (
            steady,
            replace(steady, downtimes=(store,)),
            replace(steady, leaves_s=200.0),
            replace(steady, joins_s=200.0),
            replace(steady, downtimes=(cards,)),
            replace(steady, downtimes=(for_good,)),
            steady,
            steady,
        )
    )
    kinds = _sources(num_drivers * WAVES * fleet.places)
    kinds[::GONE_EVERY] = [GONE] * len(kinds[::GONE_EVERY])
    held_s = {**fleet.held_s, GONE: FAILED_S}
    drivers = [replace(each, held_s=held_s) for each in islice(harms, num_drivers)]
    return simulate_job(kinds, drivers, videos_per_part=VIDEOS_PER_PART)


def efficiency(point: Point, job: JobRun) -> float:
    """Of the time that the drivers' places were there, the part that the job needed."""
    return 1 - point.tail_s / job.seconds


def _sources(count: int) -> list[str]:
    """Uris of an archive's videos in a fair order, the same each time."""
    uris = [str(kind.seconds) for kind in ARCHIVE for _ in range(kind.percent)]
    Random(0).shuffle(uris)  # noqa: S311 - likewise
    return list(islice(cycle(uris), count))


def _media(seconds: float) -> MediaInfo:
    """A video of 720p at 30 frames a second, with a keyframe every two seconds."""
    num_frames = round(30 * seconds)
    return MediaInfo(
        container="mov",
        codec="h264",
        pixel_format="yuv420p",
        width=1280,
        height=720,
        coded_width=1280,
        coded_height=720,
        rotation_deg=0,
        is_mirrored=False,
        sample_aspect_ratio=1.0,
        time_base_num=1,
        time_base_den=30,
        pts=np.arange(num_frames),
        is_key=np.arange(num_frames) % 60 == 0,
        duration_s=float(seconds),
        declared_duration_s=None,
        is_still=False,
    )


MEDIA = {str(kind.seconds): _media(kind.seconds) for kind in ARCHIVE}
