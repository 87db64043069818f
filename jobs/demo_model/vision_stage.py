"""Stage 1: the vision tower alone, on single temporal patches and its auxiliary heads."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from jobs.demo_model.ahead import made_ahead
from jobs.demo_model.dataset import PairBatch, make_pairs
from jobs.demo_model.heads import VisionHeads
from jobs.demo_model.trainer import Averaged, Optimiser, Run, Schedule
from pipeline.model.vision import VisionTower

BATCH_SIZE = 16


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
    run.train(made_ahead(make, run.step), learner.loss_of)
    run.average.copy_to(learner)
    return learner, run.is_stopping
