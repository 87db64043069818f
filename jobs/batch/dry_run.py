"""`vidray batch run --dry-run`: what a job would read, ask and write, and how long it may take.

The archive is listed to its end; headers are read of a sample, and the rest is taken to be like it.
Nothing is written.
"""

import random
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch

from actors.profile import Profile
from jobs.batch.method import source_of
from jobs.batch.prepare import Prepared
from jobs.exits import Exit
from jobs.machine import matmul_seconds, read_bytes_per_second
from pipeline.errors import BadInput, ConfigError
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.model.check import check_model
from pipeline.store.archive import Archive
from pipeline.store.items import Item
from pipeline.store.open import S3_SCHEME
from pipeline.types import SamplingPlan
from pipeline.video.plan import Planner
from pipeline.video.reader import probe

MAX_SAMPLED = 32
MAX_SAMPLED_S3 = 4  # these are read whole: a header may stand at the end
SIDE = 1024  # of the matmul that is timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A whole job, from its listing and a sample of headers."""

    num_videos: int
    num_parts: int
    num_sampled: int
    num_unreadable: int  # of the sample
    seconds: float  # of video, over all videos; so are the next two
    frames: float
    tokens: float


def dry_run(prepared: Prepared, profile: Profile) -> int:
    """Print the forecast; returns the exit code. ConfigError where there is no video."""
    forecast = forecast_of(prepared)
    whole = "all read" if forecast.num_sampled == forecast.num_videos else "the rest taken as alike"
    lines = {
        "videos": f"{forecast.num_videos:,}",
        "headers": f"{forecast.num_sampled} sampled, {forecast.num_unreadable} of them unreadable, "
        + whole,
        "seconds": f"{forecast.seconds:,.0f}",
        "frames": f"{forecast.frames:,.0f}",
        "tokens": f"{forecast.tokens:,.0f} of video",
        "parts": f"{forecast.num_parts:,} of {prepared.spec.items_per_part} videos",
        "time": _time(prepared, profile, forecast),
    }
    for name, value in lines.items():
        print(f"{name:8} {value}")
    return Exit.OK


def forecast_of(prepared: Prepared) -> Forecast:
    """List everything, keep a fair sample of it, read the sample's headers."""
    size = MAX_SAMPLED_S3 if prepared.spec.source.startswith(S3_SCHEME) else MAX_SAMPLED
    num_videos, sample = sampled(prepared.items(), size=size)
    if not num_videos:
        raise ConfigError(f"no videos in {prepared.spec.source}")
    plans = list(_plans(prepared, sample))
    share = num_videos / len(sample)
    return Forecast(
        num_videos=num_videos,
        num_parts=-(-num_videos // prepared.spec.items_per_part),
        num_sampled=len(sample),
        num_unreadable=len(sample) - len(plans),
        seconds=share * sum(plan.windows[-1].end_s - plan.windows[0].start_s for plan in plans),
        frames=share * sum(plan.num_frames for plan in plans),
        tokens=share * sum(plan.num_tokens for plan in plans),
    )


def sampled(items: Iterable[Item], *, size: int) -> tuple[int, list[Item]]:
    """How many items there are, and `size` of them, each as likely as any other."""
    chance = random.Random(0)  # noqa: S311 - the same sample each time is what is wanted
    sample: list[Item] = []
    count = 0
    for count, item in enumerate(items, start=1):  # noqa: B007 - the last count is the result
        if len(sample) < size:
            sample.append(item)
        elif (place := chance.randrange(count)) < size:
            sample[place] = item
    return count, sample


def _plans(prepared: Prepared, sample: list[Item]) -> Iterator[SamplingPlan]:
    """The plans of the sampled videos that have one."""
    planner = Planner(family=load_family(prepared.checkpoint), options=prepared.method.options)
    with tempfile.TemporaryDirectory(prefix="vidray-", dir=prepared.job.copies) as folder:
        archive = Archive(s3=prepared.s3, folder=folder, max_bytes=prepared.limits.max_bytes)
        for item in sample:
            try:
                with archive.open(item) as copy:
                    source = source_of(item, path=Path(copy.path))
                    yield planner.of(source).plan(
                        probe(source, prepared.limits), source_id=item.video_id
                    )
            except BadInput:
                continue


def _time(prepared: Prepared, profile: Profile, forecast: Forecast) -> str:
    """A range: the model's arithmetic at this machine's speed, without and with full answers."""
    if profile.device != "cpu" or prepared.job.address:
        return "not known from here: run it with --limit first, and watch the line"
    torch.set_num_threads(profile.decoders.num_threads)
    model = check_model(prepared.checkpoint)
    patches_per_token = load_family(prepared.checkpoint).geometry.patches_per_token
    per_token = model.num_language_parameters + patches_per_token * model.num_vision_parameters
    operations_per_s = 2 * SIDE**3 / matmul_seconds([(SIDE, SIDE, SIDE)])
    watch_s = 2 * per_token * forecast.tokens / operations_per_s
    step_s = 4 * model.num_language_parameters / read_bytes_per_second()
    num_steps = forecast.num_videos * prepared.method.tasks.sampling.max_new_tokens
    ranks = profile.decoders.num_replicas * profile.decoders.tensor_parallel
    least, most = watch_s / ranks, (watch_s + step_s * num_steps) / ranks
    return (
        f"{_span(least)} to watch, {_span(most)} if every answer is as long as it may be; "
        "estimated from this machine's speed, decoding and start not counted"
    )


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
