"""The plan of a job to come: headers, loads, costs, time, and what will not fit, in this order."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from actors.profile import Profile
from deploy.profiles import load_profile
from jobs.batch.method import make_method
from jobs.plan.calibration import Calibration, load_calibration
from jobs.plan.calibrator import calibrate
from jobs.plan.estimate import Estimate, estimate, gpus_of, streams_of
from jobs.plan.fit import Misfit, problems
from jobs.plan.hardware import CORE, LOAD_BYTES_PER_S, START_S, Card, Costs, card_costs, find_card
from jobs.plan.load import Asking, Load
from jobs.plan.options import Outlook
from jobs.plan.planned_model import PlannedModel
from jobs.plan.scan import Scan, Scanner, sampled
from jobs.workplace import machine_profile
from pipeline.errors import ConfigError
from pipeline.store.archive import Archive
from pipeline.store.job_plan import no_videos
from pipeline.store.open import S3_SCHEME
from pipeline.store.passed_over import PassedOver
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import find_items
from pipeline.video.plan import Planner
from pipeline.video.source import Source

SAMPLED, SAMPLED_S3 = 500, 8
PILOT = 16  # videos that are really asked
WITHOUT = "profile {} computes without GPUs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is shown. card: None where the profile computes on a CPU."""

    model: PlannedModel
    profile: Profile
    scan: Scan
    words: float
    costs: Costs
    estimate: Estimate
    problems: tuple[Misfit, ...]
    card: Card | None
    calibration: Calibration | None

    @property
    def load(self) -> Load:
        return self.scan.load


def make_plan(outlook: Outlook, console: Console) -> Plan:
    """ConfigError for what is misnamed, and where there is no video."""
    model = PlannedModel.of(outlook.model)
    profile = load_profile(outlook.profile) if outlook.profile else machine_profile()
    card = find_card(outlook.card) if profile.device == "cuda" else None
    if card is None and outlook.price_gpu_hour is not None:
        raise ConfigError(f"{WITHOUT.format(profile.name)}: leave --price-gpu-hour out")
    calibration = None if card else _calibration(outlook, model, profile, console)
    words = _words(outlook, calibration)
    with console.status("reading headers"):
        scan = scan_archive(outlook, model, profile, words=words)
    load = scan.load
    costs = (
        card_costs(
            model.config,
            card,
            load,
            tensor_parallel=profile.decoders.tensor_parallel,
            streams=streams_of(profile, load),
        )
        if card
        else calibration.costs
        if calibration
        else CORE
    )
    return Plan(
        model=model,
        profile=profile,
        scan=scan,
        words=words,
        costs=costs,
        estimate=estimate(
            load,
            costs,
            profile,
            cores=calibration.cores if calibration else float(os.cpu_count() or 1),
            num_fleets=_num_fleets(outlook, profile),
            start_s=_start_s(model, profile),
            is_fetched=outlook.source.startswith(S3_SCHEME),
        ),
        problems=tuple(
            problems(
                scan,
                model.config,
                profile,
                card=card,
                vision=model.vision,
                language=model.language,
                words=words,
                machine_bytes=psutil.virtual_memory().total,
            )
        ),
        card=card,
        calibration=calibration,
    )


def scan_archive(outlook: Outlook, model: PlannedModel, profile: Profile, *, words: float) -> Scan:
    """ConfigError where there is no video."""
    method = make_method(outlook, model.sampling)
    limits = outlook.limits.below(profile.decode_limits, profile=profile.name)
    s3, passed_over = S3Config.from_environment(os.environ), PassedOver()
    is_s3 = outlook.source.startswith(S3_SCHEME)
    scanner = Scanner(
        planner=Planner(family=model.family, options=method.options),
        limits=limits,
        asking=lambda item: Asking.of(
            model.config,
            method.tasks_for(item),
            words=words,
            question_tokens=profile.decoders.question_tokens,
        ),
        archive=lambda folder: Archive(
            s3=s3,
            folder=folder,
            max_bytes=limits.max_bytes,
            link_roots=method.source_filter.link_roots,
        ),
        copies=outlook.copies,
    )
    items = find_items(outlook.source, method.source_filter, s3=s3, passed_over=passed_over)
    most = outlook.sample or (SAMPLED_S3 if is_s3 else SAMPLED)
    scan = scanner.scan(items, most=most, passed_over=passed_over)
    if not scan.num_videos:
        raise ConfigError(no_videos(outlook.source, passed_over))
    return scan


def _words(outlook: Outlook, calibration: Calibration | None) -> float:
    """Of an answer: as told, as the model wrote when it was measured, or a guess."""
    guess = calibration.words if calibration else outlook.max_new_tokens / 4
    return outlook.words or max(min(guess, outlook.max_new_tokens), 1.0)


def _calibration(
    outlook: Outlook, model: PlannedModel, profile: Profile, console: Console
) -> Calibration | None:
    if model.folder is None:
        return None
    if outlook.calibrate:
        tasks = make_method(outlook, model.sampling).tasks
        return calibrate(
            model.folder, profile, console, pilot=pilot_of(outlook, model), tasks=tasks
        )
    return load_calibration(model.folder, profile)


def pilot_of(outlook: Outlook, model: PlannedModel) -> list[Source]:
    """Some videos of the archive, where they are files here."""
    if outlook.source.startswith(S3_SCHEME):
        return []
    items = find_items(outlook.source, make_method(outlook, model.sampling).source_filter)
    _, sample = sampled(items, size=PILOT)
    return [Source.of(path) for item in sample if (path := Path(item.uri)).is_file()]


def _num_fleets(outlook: Outlook, profile: Profile) -> int:
    if outlook.gpus is None:
        return outlook.fleets
    each = gpus_of(profile)
    if not each:
        raise ConfigError(f"{WITHOUT.format(profile.name)}: leave --gpus out")
    if outlook.gpus < each:
        raise ConfigError(f"profile {profile.name} takes {each:g} GPUs; --gpus is {outlook.gpus}")
    return int(outlook.gpus // each)


def _start_s(model: PlannedModel, profile: Profile) -> float:
    """Of Ray, its actors, and a checkpoint that every rank reads its part of."""
    size_bytes = 2 * model.language / profile.decoders.tensor_parallel
    return START_S + size_bytes / LOAD_BYTES_PER_S
