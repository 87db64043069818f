"""Training batches, each a pure function of (seed, index): drawn, degraded, with their truth."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from jobs.demo.render import render
from jobs.demo.world import random_scene
from jobs.lab.train.degrade import degrade
from jobs.lab.train.targets import CELL, TokenTargets, token_targets
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.sizes import PixelRange, bounded_resize
from pipeline.types import Size

MAX_PIXELS = 40 * CELL**2  # of the checkpoint's preprocessor_config
MIN_PIXELS = 20 * CELL**2
FRAME_GAP_S = 0.5  # at 2 fps


@dataclass(slots=True)
class PairBatch:
    """Single temporal patches of one size, for the vision tower alone."""

    frames: np.ndarray  # (B, 2, H, W, 3) uint8
    targets: TokenTargets  # (B, M, ...)


def random_size(rng: Generator) -> tuple[Size, float]:
    """A planned frame size as the checkpoint's limits give it, and the aspect of its source."""
    aspect = float(np.exp(rng.uniform(-np.log(2), np.log(2))))
    longest = rng.uniform(128 * max(aspect, 1 / aspect), 640)
    width, height = longest * min(aspect, 1.0), longest * min(1 / aspect, 1.0)
    source = Size(round(height), round(width))
    area = PixelRange(MIN_PIXELS, MAX_PIXELS)
    return bounded_resize(source, area, factor=GEOMETRY.factor), width / height


def make_pairs(
    seed: int, index: int, *, batch_size: int, fixed_size: Size | None = None
) -> PairBatch:
    """Batch number `index` of a seed's endless series; two moments of each scene.

    fixed_size: squeeze every picture into this one instead of keeping its shape
    """
    rng = np.random.default_rng((seed, index))
    size, aspect = random_size(rng)
    size = fixed_size or size
    frames, targets = [], []
    for _ in range(batch_size // 2):
        scene = random_scene(rng, aspect=aspect)
        moments = []
        for _ in range(2):
            gap_s = 0.0 if rng.random() < 0.12 else FRAME_GAP_S * float(rng.uniform(0.9, 1.2))
            start_s = float(rng.uniform(0, scene.duration_s - gap_s))
            moments.append((start_s, start_s + gap_s))
        times = [time_s for moment in moments for time_s in moment]
        drawn = render(scene, times, height=size.height, width=size.width, colour_jitter=14)
        for i, moment in enumerate(moments):
            frames.append(degrade(drawn[2 * i : 2 * i + 2], rng))
            rows, columns = size.height // CELL, size.width // CELL
            targets.append(token_targets(scene, moment, rows=rows, columns=columns))
    return PairBatch(np.stack(frames), TokenTargets.stack(targets))
