"""From loads and costs to time: who is busy for how long, and for whom all others wait."""

from dataclasses import dataclass

from actors.profile import Profile
from jobs.plan.hardware import FETCH_BYTES_PER_S, Cost, Costs
from jobs.plan.load import Load

GET_LIMIT, PUT_LIMIT = 5_500, 3_500  # requests a second of one prefix, as S3 is documented
REQUESTS_PER_VIDEO = 2  # its head, its bytes
READS_PER_PART, WRITES_PER_PART = 1, 2  # is it whole; its claim, its rows


ROLES_OF_STAGES = {
    "readers": "reader",
    "encoders": "encoder",
    "decoders": "decoder",
    "stream host": "host",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEstimate:
    """Somebody who works. busy_s: seconds of one worker over the whole job."""

    name: str
    busy_s: float
    workers: float

    @property
    def time_s(self) -> float:
        """For as long as this stage alone would take, with all its workers."""
        return self.busy_s / self.workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of a whole job on so many equal fleets. stages: the slowest one first."""

    stages: tuple[StageEstimate, ...]
    num_fleets: int
    num_gpus: float  # of all fleets
    start_s: float

    @property
    def bottleneck(self) -> StageEstimate:
        return self.stages[0]

    @property
    def work_s(self) -> float:
        """Until the last row, without the start."""
        return self.bottleneck.time_s

    @property
    def time_s(self) -> float:
        return self.start_s + self.work_s

    @property
    def gpu_hours(self) -> float:
        """That are paid for, busy or not."""
        return self.num_gpus * self.time_s / 3600

    def stage(self, name: str) -> StageEstimate:
        return next(each for each in self.stages if each.name == name)


def seconds(cost: Cost, load: Load, *, work: float) -> float:
    """Of one worker. work: the stage's own, pixels or operations."""
    return (
        cost.video_s * load.videos
        + cost.chunk_s * load.chunks
        + cost.work_s * work
        + cost.word_s * load.words
    )


def streams_of(profile: Profile, load: Load) -> float:
    """That a replica has open at once: as many as are in flight, or as its tokens have room for."""
    pool = profile.decoders
    tokens = load.kv_tokens / max(load.views, 1e-9) + pool.question_tokens
    return min(profile.videos_in_flight / pool.num_replicas, max(pool.kv_tokens / tokens, 1.0))


def estimate(
    load: Load,
    costs: Costs,
    profile: Profile,
    *,
    cores: float,
    num_fleets: int,
    start_s: float,
    is_fetched: bool = False,
) -> Estimate:
    """Of this load on so many fleets of this profile. cores: of a CPU that all stages share.

    is_fetched: the driver copies each video out of a store first.
    """
    decoders, encoders, readers = profile.decoders, profile.encoders, profile.readers
    reading = seconds(costs.reader, load, work=load.pixels)
    encoding = seconds(costs.encoder, load, work=load.tower_flops)
    decoding = seconds(costs.decoder, load, work=load.prefill_flops)
    hosting = seconds(costs.host, load, work=0.0)
    rest = seconds(costs.rest, load, work=0.0)
    stages = {"stream host": (hosting, float(profile.stream_hosts))}
    if is_fetched:
        stages["downloads"] = load.size_bytes / FETCH_BYTES_PER_S, 1.0
    num_gpus = 0.0
    if profile.device == "cpu":
        total = reading + encoding + decoding + hosting + rest
        stages |= {
            "readers": (reading, readers.num_actors * readers.videos_per_actor),
            "encoders": (encoding, encoders.num_actors * encoders.num_threads),
            "decoders": (
                decoding,
                decoders.num_replicas * decoders.tensor_parallel * decoders.num_threads,
            ),
            "cores": (total, cores),
        }
    else:
        ranks = decoders.num_replicas * decoders.tensor_parallel
        num_gpus = gpus_of(profile)
        # A card that a rank shares with an encoder does one or the other.
        stages |= {
            "readers": (reading, max(readers.num_actors * readers.num_cpus, 1e-9)),
            "GPUs": (encoding + decoding * decoders.tensor_parallel, max(num_gpus, 1.0)),
            "decoders": (decoding, decoders.num_replicas),
            "encoders": (encoding, min(encoders.num_actors, max(ranks, 1))),
            "videos in flight": (_waiting(load, costs), profile.videos_in_flight),
        }
    made = (
        StageEstimate(name=name, busy_s=busy_s, workers=workers * num_fleets)
        for name, (busy_s, workers) in stages.items()
    )
    return Estimate(
        stages=tuple(sorted(made, key=lambda stage: -stage.time_s)),
        num_fleets=num_fleets,
        num_gpus=num_gpus * num_fleets,
        start_s=start_s,
    )


def gpus_of(profile: Profile) -> float:
    """Cards that one fleet takes."""
    pool = profile.decoders
    whole = pool.num_replicas * pool.tensor_parallel * pool.num_gpus
    both = whole + profile.encoders.num_actors * profile.encoders.num_gpus
    return float(round(both + 0.4999)) if both % 1 else both


def _waiting(load: Load, costs: Costs) -> float:
    """From each video's opening to its last word, if it never waited for another: added up.

    Reading, encoding and prefill of one video go on at the same time.
    """
    words = load.words / max(load.answers, 1e-9)
    ahead = max(
        seconds(costs.reader, load, work=load.pixels),
        seconds(costs.encoder, load, work=load.tower_flops),
        costs.decoder.chunk_s * load.chunks + costs.decoder.work_s * load.prefill_flops,
    )
    return ahead + load.views * words * costs.step_s
