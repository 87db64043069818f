"""The stages in which the language model learns: alone from facts, then with the tower.

decoder   video tokens are replaced by what they should say (`FactEmbedding`): nothing is drawn, no
          tower runs, and the language model need not wait for one that sees well
together  the whole model; the tower already writes what the language model reads
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from jobs.lab.train.heads import FactEmbedding, VisionHeads
from jobs.lab.train.lessons import ClipBatch, make_clips
from jobs.lab.train.made_ahead import made_ahead
from jobs.lab.train.teacher import Teacher
from jobs.lab.train.trainer import TrainingRun, new_run
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.model.language import LanguageModel
from pipeline.model.tokenizer import Tokenizer

FACTS = 0.5  # weight of the tower's own loss beside the answers'
GROWING = ((0, 4), (1000, 6), (2500, 10))  # clips get longer as batches go by
EVERY_LENGTH = ((0, 10),)
GENTLY = 0.5  # both halves know their part already

Figures = dict[str, float]


class DecoderLearner(nn.Module):
    """The language model on facts instead of vision tokens."""

    def __init__(self, language: LanguageModel, facts: FactEmbedding, teacher: Teacher) -> None:
        super().__init__()
        self.language, self.teacher = language, teacher
        self._facts = [facts]  # in a list: no part of what is trained or saved

    def loss_of(self, batch: ClipBatch) -> tuple[Tensor, Figures]:
        loss, figures = self.teacher(self.language, self._facts[0](batch.targets), batch)
        return loss, figures


class Learner(nn.Module):
    """The whole model, and heads that are thrown away after training."""

    def __init__(self, model: Qwen2VL, heads: VisionHeads, teacher: Teacher) -> None:
        super().__init__()
        self.model, self.heads, self.teacher = model, heads, teacher

    def loss_of(self, batch: ClipBatch) -> tuple[Tensor, Figures]:
        tokens = self.model.vision(torch.from_numpy(batch.frames))
        scores = self.heads(tokens, batch.targets)
        loss, figures = self.teacher(self.model.language, tokens, batch)
        figures |= {f"vision_{name}": value for name, value in scores.figures.items()}
        return loss + FACTS * scores.loss, figures


def train_decoder(
    learner: DecoderLearner, folder: Path, *, num_steps: int, seed: int, tokenizer: Tokenizer
) -> None:
    """Train until num_steps, resuming from the folder."""
    run = new_run(learner, folder, num_steps=num_steps)
    make = partial(make_clips, seed, tokenizer_json=tokenizer.json, longest=GROWING, is_drawn=False)
    run.train(made_ahead(make, run.step), learner.loss_of)


def train_together(
    learner: Learner,
    folder: Path,
    *,
    num_steps: int,
    seed: int,
    tokenizer: Tokenizer,
    on_save: Callable[[TrainingRun], None],
) -> None:
    """Train until num_steps, resuming from the folder."""
    run = new_run(learner, folder, num_steps=num_steps, peak=GENTLY)
    make = partial(make_clips, seed, tokenizer_json=tokenizer.json, longest=EVERY_LENGTH)
    run.train(made_ahead(make, run.step), learner.loss_of, on_save)
