"""The whole training of vidray-demo, stage by stage; stop it any time and it goes on where it was.

decoder   the language model alone, on facts written as vision tokens
vision    the tower alone, on single temporal patches: to write those facts
together  both, on clips

The first two need nothing of each other and run side by side, each on its share of the threads:
models this small do not keep two cores busy with one step.
"""

import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from jobs.lab.train.card import card
from jobs.lab.train.export import export
from jobs.lab.train.heads import FactEmbedding
from jobs.lab.train.language_stage import (
    DecoderLearner,
    Learner,
    train_decoder,
    train_together,
)
from jobs.lab.train.shape import demo_config, new_model
from jobs.lab.train.teacher import Teacher
from jobs.lab.train.trainer import TrainingRun, load_averaged
from jobs.lab.train.vision_stage import VisionLearner, train_vision
from jobs.lab.train.vocabulary import CONTROL, load_tokenizer
from pipeline.errors import VidrayError
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.weights import load_model


class TrainingError(VidrayError):
    """A stage that ended on its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Steps of each stage."""

    decoder_steps: int = 3600
    vision_steps: int = 6400
    together_steps: int = 3300
    seed: int = 0


class Learners:
    """What learns in each stage: the parts of one model, and the facts that join its halves."""

    def __init__(self, *, seed: int) -> None:
        self.tokenizer = load_tokenizer()
        self.model = untrained(self.tokenizer, seed=seed)
        facts = FactEmbedding(self.model.config.hidden_size)
        teacher = Teacher(self.model.config, self.tokenizer)
        self.decoder = DecoderLearner(self.model.language, facts, teacher)
        self.vision = VisionLearner(self.model.vision, facts)
        self.together = Learner(self.model, self.vision.heads, teacher)


def train(
    folder: Path,
    budget: Budget,
    *,
    begin: Path | None = None,
    weights: Path | None = None,
    num_threads: int = 2,
) -> None:
    """Train in `folder`, resuming what is there; averaged weights go to `weights` now and then.

    begin: a vidray-demo to go on from, in place of the halves' own stages
    errors: TrainingError if a stage's process dies; CheckpointError if `begin` is none
    """
    learners = Learners(seed=budget.seed)
    if begin:
        learners.model.load_state_dict(load_model(begin).state_dict())
    elif _both_halves(folder, budget, num_threads=max(1, num_threads // 2)):
        load_averaged(learners.decoder, folder / "decoder")
        load_averaged(learners.vision, folder / "vision")
    else:
        return
    torch.set_num_threads(num_threads)
    train_together(
        learners.together,
        folder / "together",
        num_steps=budget.together_steps,
        seed=budget.seed + 1,
        tokenizer=learners.tokenizer,
        on_save=writer(learners.tokenizer, weights or folder / "weights"),
    )


def _both_halves(folder: Path, budget: Budget, *, num_threads: int) -> bool:
    """Train decoder and tower, each in a process of its own; False if told to stop."""
    context = multiprocessing.get_context("spawn")
    halves = [
        context.Process(target=half, args=(folder, budget, num_threads))
        for half in (_decoder_half, _vision_half)
    ]
    is_stopping = False

    def stop(*_: object) -> None:
        nonlocal is_stopping
        is_stopping = True
        for half in halves:
            half.terminate()  # which saves before it ends

    for half in halves:
        half.start()
    before = signal.signal(signal.SIGTERM, stop)
    try:
        for half in halves:
            half.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    failed = [half.exitcode for half in halves if half.exitcode]
    if failed and not is_stopping:
        raise TrainingError(f"a stage ended with exit code {failed[0]}; run it again to go on")
    return not is_stopping


def _decoder_half(folder: Path, budget: Budget, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    learners = Learners(seed=budget.seed)
    train_decoder(
        learners.decoder,
        folder / "decoder",
        num_steps=budget.decoder_steps,
        seed=budget.seed,
        tokenizer=learners.tokenizer,
    )


def _vision_half(folder: Path, budget: Budget, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    learner = Learners(seed=budget.seed).vision
    train_vision(learner, folder / "vision", num_steps=budget.vision_steps, seed=budget.seed)


def untrained(tokenizer: Tokenizer, *, seed: int) -> Qwen2VL:
    ids = {token: tokenizer.control_id(token) for token in CONTROL}
    config = demo_config(vocab_size=max(ids.values()) + 1, special_ids=ids)
    return new_model(config, seed=seed)


def writer(tokenizer: Tokenizer, weights: Path) -> Callable[[TrainingRun], None]:
    """Writes a run's averaged weights as a checkpoint folder."""
    spare = untrained(tokenizer, seed=0)

    def write(run: TrainingRun) -> None:
        names = {name for name, _ in spare.named_parameters()}
        averaged = run.average.values
        spare.load_state_dict({name: averaged[f"model.{name}"] for name in names}, strict=False)
        export(spare, tokenizer, weights, card=card({}, num_clips=0))

    return write
