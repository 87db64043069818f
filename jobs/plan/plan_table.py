"""A plan for people: what was seen, what it asks for, who waits for whom, what it costs."""

from collections.abc import Iterator
from datetime import timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.plan.estimate import (
    GET_LIMIT,
    PUT_LIMIT,
    READS_PER_PART,
    REQUESTS_PER_VIDEO,
    WRITES_PER_PART,
    gpus_of,
    streams_of,
)
from jobs.plan.fit import card_memory, weight_bytes
from jobs.plan.memory_need import memory_bytes
from jobs.plan.operations import language_weights
from jobs.plan.options import Outlook
from jobs.plan.outlook import Plan
from jobs.printable import printable
from pipeline.config import GIB, MIB
from pipeline.store.passed_over import describe_passed_over

VIDEOS_PER_PART = 64


def show(plan: Plan, outlook: Outlook, console: Console) -> None:
    """Print everything; of an archive of which nothing can be planned, why."""
    if not plan.scan.seen:
        told = f"nothing can be planned of {plan.scan.num_sampled} videos: {plan.scan.refused}"
        console.print(Text(printable(told), style="red"))
        return
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(plan, outlook):
        facts.add_row(Text(name, style="bold"), Text(printable(value)))
    console.print(facts)
    console.print(_stages(plan))
    for problem in plan.problems:
        verdict = "will not fit" if problem.stops else "note"
        style = "red" if problem.stops else "yellow"
        console.print(Text(printable(f"{verdict}: {problem.text}"), style=style))


def _facts(plan: Plan, outlook: Outlook) -> Iterator[tuple[str, str]]:
    scan, load, found = plan.scan, plan.load, plan.estimate
    margin = f" +- {scan.uncertainty:.0%}" if scan.uncertainty else ""
    opened = "all headers read" if scan.is_whole else f"{scan.num_sampled:,} headers sampled"
    yield "videos", f"{scan.num_videos:,}, {opened}; {_hours(load.seconds)} to be looked at"
    if scan.passed_over:
        yield "others", describe_passed_over(scan.passed_over)
    yield "frames", f"{load.frames:,.0f}{margin}"
    yield "tokens", f"{load.tokens:,.0f}{margin} of video in {load.chunks:,.0f} chunks"
    yield "words", f"{load.words:,.0f} in {load.answers:,.0f} answers, {plan.words:.3g} each"
    yield (
        "model",
        f"{plan.model.name}: {plan.model.vision / 1e9:.3g} B tower, "
        f"{plan.model.language / 1e9:.3g} B language model",
    )
    yield (
        "operations",
        f"tower {_flops(load.tower_flops)}, prefill {_flops(load.prefill_flops)}, words "
        f"{_flops(2 * language_weights(plan.model.config) * load.words)}",
    )
    yield "profile", _profile(plan)
    yield "costs", plan.costs.origin
    yield "memory", _memory(plan)
    yield "streams", _streams(plan)
    yield "store", _store(plan)
    yield (
        "time",
        f"{_span(found.time_s)}: {_span(found.start_s)} to start, {_span(found.work_s)} to work; "
        f"waits for: {found.bottleneck.name}",
    )
    if found.num_gpus:
        busy = found.stage("GPUs").time_s / found.work_s
        yield "GPU-hours", f"{found.gpu_hours:,.1f} on {found.num_gpus:g} cards, busy {busy:.0%}"
        if outlook.price_gpu_hour is not None:
            yield "money", f"{found.gpu_hours * outlook.price_gpu_hour:,.2f}"
        yield "ratios", _ratios(plan)


def _profile(plan: Plan) -> str:
    profile, fleets = plan.profile, plan.estimate.num_fleets
    pool = profile.decoders
    card = f" of {gpus_of(profile):g} x {plan.card.name}" if plan.card else ""
    return (
        f"{fleets} x {profile.name}{card}: {_several(profile.readers.num_actors, 'reader')}, "
        f"{_several(profile.encoders.num_actors, 'encoder')}, "
        f"{_several(pool.num_replicas, 'decoder')} of {_several(pool.tensor_parallel, 'rank')}, "
        f"{_several(profile.videos_in_flight, 'video')} in flight"
    )


def _memory(plan: Plan) -> str:
    if plan.card is None:
        if plan.calibration is None:
            weights = weight_bytes(
                plan.profile, vision=plan.model.vision, language=plan.model.language
            )
            return f"{weights / MIB:,.0f} MiB of weights; the rest is not known before --calibrate"
        peak = memory_bytes(plan.calibration, plan.load, plan.model.config, plan.profile)
        return f"{peak / MIB:,.0f} MiB of all processes at the peak"
    found = card_memory(plan.model.config, plan.profile, plan.card, vision=plan.model.vision)
    if not found.weights:
        return "not known: the model cannot be split so"
    return (
        f"of a card {found.together / GIB:.1f} of {found.usable / GIB:.1f} GiB: weights "
        f"{found.weights / GIB:.1f}, keys and values {found.kv / GIB:.1f}, encoders "
        f"{found.encoder / GIB:.1f}; object store "
        f"{_object_store(plan) / GIB:.1f} of {plan.profile.object_store_bytes / GIB:.1f} GiB"
    )


def _object_store(plan: Plan) -> float:
    """What videos in flight may have on their way."""
    return float(plan.profile.videos_in_flight * plan.profile.video_bytes)


def _streams(plan: Plan) -> str:
    load, pool = plan.load, plan.profile.decoders
    tokens = load.kv_tokens / max(load.views, 1e-9)
    return (
        f"{streams_of(plan.profile, load):.3g} open at once in a replica, {tokens:,.0f} tokens "
        f"each; room for {pool.kv_tokens / (tokens + pool.question_tokens):.3g}"
    )


def _store(plan: Plan) -> str:
    parts = -(-plan.scan.num_videos // VIDEOS_PER_PART)
    seconds = max(plan.estimate.work_s, 1e-9)
    reads = (plan.load.videos * REQUESTS_PER_VIDEO + parts * READS_PER_PART) / seconds
    puts = parts * WRITES_PER_PART / seconds
    return (
        f"{parts:,} parts; {reads:,.1f} reads and {puts:,.1f} puts a second, where S3 takes "
        f"{GET_LIMIT:,} and {PUT_LIMIT:,} of a prefix"
    )


def _ratios(plan: Plan) -> str:
    """How many of each keep one decoder replica busy, and no more."""
    busy = {stage.name: stage.busy_s for stage in plan.estimate.stages}
    replica = max(busy["decoders"], 1e-9)
    return (
        f"a decoder replica is kept busy by {busy['readers'] / replica:.2g} cores that read and "
        f"{busy['encoders'] / replica:.2g} cards that encode; a stream host by "
        f"{busy['stream host'] and replica / busy['stream host']:,.3g} replicas"
    )


def _stages(plan: Plan) -> Table:
    table = Table("stage", "busy", "workers", "alone it would take", title="who waits for whom")
    for column in table.columns[1:]:
        column.justify = "right"
    for stage in plan.estimate.stages:
        table.add_row(stage.name, _span(stage.busy_s), _number(stage.workers), _span(stage.time_s))
    return table


def _flops(number: float) -> str:
    for scale, unit in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if number >= scale:
            return f"{number / scale:,.3g} {unit}FLOP"
    return f"{number:,.3g} FLOP"


def _number(count: float) -> str:
    """Whole from ten on."""
    return f"{count:,.0f}" if count >= 10 else f"{count:.3g}"


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds >= 36_000 else f"{seconds:,.0f} s"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.1f} s"
    return str(timedelta(seconds=round(seconds)))
