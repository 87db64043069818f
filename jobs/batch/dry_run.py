"""`vidray batch run --dry-run`: what a job would read, ask and write, and how long it may take.

The archive is listed to its end; headers are read of a sample, and the rest is taken to be like it.
Nothing is written.
"""

from dataclasses import replace
from datetime import timedelta

import torch

from actors.profile import Profile
from jobs.batch.prepare import Prepared
from jobs.exits import Exit
from jobs.machine import matmul_seconds, read_bytes_per_second
from jobs.plan.load import Asking
from jobs.plan.scan import Scan, Scanner
from jobs.printable import printable
from pipeline.errors import ConfigError
from pipeline.families.qwen2_vl.config import load_config
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.model.check import check_model
from pipeline.store.job_plan import no_videos
from pipeline.store.open import S3_SCHEME
from pipeline.store.passed_over import PassedOver, describe_passed_over
from pipeline.video.plan import Planner

MAX_SAMPLED = 32
MAX_SAMPLED_S3 = 4  # these are read whole: a header may stand at the end
SIDE = 1024  # of the matmul that is timed


def dry_run(prepared: Prepared, profile: Profile) -> int:
    """Print the forecast; returns the exit code. ConfigError where there is no video."""
    scan = forecast_of(prepared)
    load, per_part = scan.load, prepared.spec.items_per_part
    whole = "all read" if scan.is_whole else "the rest taken as alike"
    refused = f", some cannot be planned: {scan.refused}" if scan.refused else ""
    lines = {
        "videos": f"{scan.num_videos:,}",
        "headers": f"{scan.num_sampled} sampled{refused}, {whole}",
        "seconds": f"{load.seconds:,.0f}",
        "frames": f"{load.frames:,.0f}",
        "tokens": f"{load.tokens:,.0f} of video",
        "parts": f"{-(-scan.num_videos // per_part):,} of {per_part} videos",
        "time": _time(prepared, profile, scan),
    }
    if scan.passed_over:
        lines["others"] = describe_passed_over(scan.passed_over)
    for name, value in lines.items():
        print(f"{name:8} {printable(value)}")
    return Exit.OK


def forecast_of(prepared: Prepared) -> Scan:
    """List everything, keep a fair sample of it, read the sample's headers."""
    passed_over, method = PassedOver(), prepared.method
    asking = Asking.of(load_config(prepared.checkpoint), method.tasks)
    scanner = Scanner(
        planner=Planner(family=load_family(prepared.checkpoint), options=method.options),
        limits=prepared.limits,
        asking=lambda item: replace(asking, tasks=method.tasks_for(item)),
        archive=prepared.archive,
        copies=prepared.job.copies,
    )
    most = MAX_SAMPLED_S3 if prepared.spec.source.startswith(S3_SCHEME) else MAX_SAMPLED
    scan = scanner.scan(prepared.items(passed_over), most=most, passed_over=passed_over)
    if not scan.num_videos:
        raise ConfigError(no_videos(prepared.spec.source, passed_over))
    return scan


def _time(prepared: Prepared, profile: Profile, scan: Scan) -> str:
    """A range: the model's arithmetic at this machine's speed, without and with full answers."""
    if profile.device != "cpu" or prepared.job.address:
        return "not known from here: vidray plan reckons it, --limit and the line measure it"
    torch.set_num_threads(profile.decoders.num_threads)
    model = check_model(prepared.checkpoint)
    patches_per_token = load_family(prepared.checkpoint).geometry.patches_per_token
    per_token = model.num_language_parameters + patches_per_token * model.num_vision_parameters
    operations_per_s = 2 * SIDE**3 / matmul_seconds([(SIDE, SIDE, SIDE)])
    watch_s = 2 * per_token * scan.load.tokens / operations_per_s
    step_s = 4 * model.num_language_parameters / read_bytes_per_second()
    num_steps = scan.num_videos * prepared.method.tasks.sampling.max_new_tokens
    ranks = profile.decoders.num_replicas * profile.decoders.tensor_parallel
    least, most = watch_s / ranks, (watch_s + step_s * num_steps) / ranks
    return (
        f"{_span(least)} to watch, {_span(most)} if every answer is as long as it may be; "
        "estimated from this machine's speed, decoding and start not counted"
    )


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
