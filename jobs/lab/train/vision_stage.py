"""The stage in which the tower learns alone: to see, and to write what it sees as facts."""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from jobs.lab.train.dataset import PairBatch, make_pairs
from jobs.lab.train.heads import FactEmbedding, VisionHeads
from jobs.lab.train.made_ahead import made_ahead
from jobs.lab.train.trainer import new_run
from pipeline.families.qwen2_vl.vision import VisionTower

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
        spread = wanted.var()  # none in a batch without any shape
        missed = F.mse_loss(tokens, wanted) / (spread if spread > 0 else 1.0)
        return scores.loss + WRITING * missed, scores.figures | {"unwritten": missed.item()}


def train_vision(learner: VisionLearner, folder: Path, *, num_steps: int, seed: int) -> None:
    """Train until num_steps, resuming from the folder."""
    run = new_run(learner, folder, num_steps=num_steps)
    make = partial(make_pairs, seed, batch_size=BATCH_SIZE)
    run.train(made_ahead(make, run.step), learner.loss_of)
