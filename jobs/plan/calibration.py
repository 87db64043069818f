"""Costs measured on this machine, by trials of a few clips (calibrator.py), and kept.

What is counted is time of processors, not of the clock, so that other work on the machine does not
change it; of the cores that others left, how many the fleet kept busy is measured with it. Kept in
the user's cache, one file for a model and a profile.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from actors.profile import Profile
from jobs.plan.hardware import Cost, Costs
from jobs.plan.load import Load
from jobs.plan.processes import Used, num_cores
from pipeline.model.digest import digest

# What a stage's time can come from; what it does not meet is not fitted.
CAUSES = {
    "reader": ("videos", "work"),
    "encoder": ("chunks", "work"),
    "decoder": ("chunks", "work", "words"),
    "host": ("videos", "chunks", "words"),
    "rest": ("videos", "words"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """cores: that the fleet keeps busy where nobody else wants any. memory_bytes: of all processes
    at the peak, clips of `kv_tokens` each in flight included. words: of an answer about videos that
    were to be planned for, or of a caption of the drawn clips where none could be had.
    """

    costs: Costs
    cores: float
    memory_bytes: float
    kv_tokens: float
    words: float


@dataclass(frozen=True, slots=True)
class CalibrationTrial:
    """One run: what it asked for, and what it took."""

    load: Load
    used: Used


def load_calibration(folder: Path, profile: Profile) -> Calibration | None:
    """What was kept for this model and profile on this machine; None where there is nothing."""
    try:
        return _CALIBRATION.validate_json(_path(folder, profile).read_bytes())
    except (OSError, ValidationError):
        return None


def calibration_of(trials: Sequence[CalibrationTrial], *, memory_bytes: float) -> Calibration:
    """What these trials say together. memory_bytes: at their peak."""
    many = [each for each in trials if each.load.words > each.load.answers]
    return Calibration(
        costs=fit(trials),
        cores=num_cores() * _share_kept_busy(trials),
        memory_bytes=memory_bytes,
        kv_tokens=max(each.load.kv_tokens / each.load.views for each in trials),
        words=sum(each.load.words for each in many) / sum(each.load.answers for each in many),
    )


def _share_kept_busy(trials: Sequence[CalibrationTrial]) -> float:
    """Of the time of cores that nobody else had."""
    free_s = sum(each.used.free * each.used.wall_s for each in trials)
    return min(1.0, sum(each.used.total_s for each in trials) / max(free_s, 1e-9))


def fit(trials: Sequence[CalibrationTrial]) -> Costs:
    """Costs that explain what the trials took best; none is below nothing."""
    work = {"reader": "pixels", "encoder": "tower_flops", "decoder": "prefill_flops"}
    costs = {
        role: _fitted(
            [
                [_feature(each.load, cause, work.get(role, "")) for cause in causes]
                for each in trials
            ],
            [each.used.seconds[role] for each in trials],
            causes,
        )
        for role, causes in CAUSES.items()
    }
    return Costs(
        reader=costs["reader"],
        encoder=costs["encoder"],
        decoder=costs["decoder"],
        host=costs["host"],
        rest=costs["rest"],
        origin="measured on this machine",
    )


def _fitted(
    features: Sequence[Sequence[float]], seconds: Sequence[float], causes: Sequence[str]
) -> Cost:
    """Non-negative least squares: of all subsets of causes the best one without a negative cost.

    Each trial counts by its share: what is off by a tenth is as bad in a short one.
    """
    weights = 1 / np.maximum(np.asarray(seconds), 1e-6)
    matrix, target = np.asarray(features) * weights[:, None], np.ones(len(seconds))
    best, least = np.zeros(len(causes)), float(len(seconds))
    for size in range(1, len(causes) + 1):
        for chosen in map(list, combinations(range(len(causes)), size)):
            found, *_ = np.linalg.lstsq(matrix[:, chosen], target, rcond=None)
            error = float(((matrix[:, chosen] @ found - target) ** 2).sum())
            if (found >= 0).all() and error < least:
                best, least = np.zeros(len(causes)), error
                best[chosen] = found
    names = {"videos": "video_s", "chunks": "chunk_s", "work": "work_s", "words": "word_s"}
    return Cost(**{names[cause]: float(value) for cause, value in zip(causes, best, strict=True)})


def _feature(load: Load, cause: str, work: str) -> float:
    return float(getattr(load, work if cause == "work" else cause))


def keep(found: Calibration, folder: Path, profile: Profile) -> None:
    """In the user's cache, for this model and profile."""
    path = _path(folder, profile)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(found), indent=1))


def _path(folder: Path, profile: Profile) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    named = f"{digest(folder)} {profile.model_dump_json()} {os.cpu_count()} {_processor()}"
    return cache / "vidray" / f"costs-{hashlib.sha256(named.encode()).hexdigest()[:16]}.json"


def _processor() -> str:
    """As Linux calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("model name")), "")


_CALIBRATION = TypeAdapter(Calibration)
