"""Stage 1: the vision tower alone, on single temporal patches and its auxiliary heads."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from jobs.demo_model.ahead import made_ahead
from jobs.demo_model.dataset import PairBatch, make_pairs
from jobs.demo_model.heads import VisionHeads
from jobs.demo_model.targets import CELL, MOTION_INDEX, TokenTargets
from jobs.demo_model.trainer import Averaged, Optimiser, Run, Schedule
from pipeline.model.vision import VisionTower

BATCH_SIZE = 32
LAG = 40  # a batch is seen again, mirrored, this many batches after the first time


class VisionLearner(nn.Module):
    """The tower and its heads."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self.tower = tower
        self.heads = VisionHeads(tower.config.hidden_size)

    def loss_of(self, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
        tokens = self.tower(torch.from_numpy(batch.frames))
        scores = self.heads(tokens, batch.targets)
        return scores.loss, scores.figures


def train_vision(
    tower: VisionTower, folder: Path, *, num_steps: int, seed: int
) -> tuple[VisionLearner, bool]:
    """Train until num_steps, resuming from the folder.

    returns: the learner with averaged weights, and whether it was told to stop before the end
    """
    learner = VisionLearner(tower)
    run = Run(folder, learner, Optimiser(learner), Schedule(num_steps=num_steps), Averaged(learner))
    run.resume()
    make = partial(make_pairs, seed, batch_size=BATCH_SIZE)
    run.train(twice(make, run.step), learner.loss_of)
    run.average.copy_to(learner)
    return learner, run.is_stopping


def twice(make: "partial[PairBatch]", step: int) -> Iterator[PairBatch]:
    """Batches from a step on: even steps a new one, odd steps an older one in a mirror."""
    fresh = step // 2
    recent: list[PairBatch] = []
    first = max(0, fresh - LAG)
    for index, batch in enumerate(made_ahead(make, first), first):
        recent = [*recent[-LAG:], batch]
        if index < fresh:
            continue
        if index > fresh or step % 2 == 0:
            yield batch
        yield mirrored(recent[0])


def mirrored(batch: PairBatch) -> PairBatch:
    """The same batch seen in a mirror."""
    old = batch.targets
    columns = batch.frames.shape[3] // CELL

    def flip(values: np.ndarray) -> np.ndarray:
        shape = values.shape
        grid = values.reshape(shape[0], -1, columns, *shape[2:])
        return grid[:, :, ::-1].reshape(shape)

    boxes = flip(old.boxes)[..., (2, 1, 0, 3)] * np.array((-1, 1, -1, 1), np.float32)
    motion = flip(old.motion)
    left, right = MOTION_INDEX["left"], MOTION_INDEX["right"]
    motion = np.select([motion == left, motion == right], [right, left], motion)
    targets = TokenTargets(
        is_shape=flip(old.is_shape),
        is_centre=flip(old.is_centre),
        colour=flip(old.colour),
        kind=flip(old.kind),
        motion=motion,
        seen=flip(old.seen),
        boxes=boxes,
    )
    return PairBatch(np.ascontiguousarray(batch.frames[:, :, :, ::-1]), targets)
