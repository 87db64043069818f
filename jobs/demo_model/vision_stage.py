"""The stage in which the tower learns alone: to see, and to write what it sees as facts."""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from jobs.demo_model.ahead import made_ahead
from jobs.demo_model.dataset import PairBatch, make_pairs
from jobs.demo_model.heads import FactEmbedding, VisionHeads
from jobs.demo_model.trainer import Averaged, Optimiser, Run, Schedule
from pipeline.model.vision import VisionTower

BATCH_SIZE = 16
WRITING = 0.5  # weight of writing facts beside knowing them


class VisionLearner(nn.Module):
    """The tower, its heads, and what it is to write, which stays as it is."""

    def __init__(self, tower: VisionTower, facts: FactEmbedding) -> None:
        super().__init__()
        self.tower = tower
        self.heads = VisionHeads(tower.config.hidden_size)
        self._facts = [facts]  # in a list: no part of what is trained or saved

    def loss_of(self, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
        tokens = self.tower(torch.from_numpy(batch.frames))
        scores = self.heads(tokens, batch.targets)
        with torch.no_grad():
            wanted = self._facts[0](batch.targets)
        missed = F.mse_loss(tokens, wanted) / wanted.var()
        return scores.loss + WRITING * missed, scores.figures | {"unwritten": missed.item()}


def train_vision(
    tower: VisionTower, facts: FactEmbedding, folder: Path, *, num_steps: int, seed: int
) -> tuple[VisionLearner, bool]:
    """Train until num_steps, resuming from the folder.

    returns: the learner with averaged weights, and whether it was told to stop before the end
    """
    learner = VisionLearner(tower, facts)
    run = Run(folder, learner, Optimiser(learner), Schedule(num_steps=num_steps), Averaged(learner))
    run.resume()
    make = partial(make_pairs, seed, batch_size=BATCH_SIZE)
    run.train(made_ahead(make, run.step), learner.loss_of)
    run.average.copy_to(learner)
    return learner, run.is_stopping
