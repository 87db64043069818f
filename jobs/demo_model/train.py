"""The whole training of vidray-demo, stage by stage; stop it any time and it goes on where it was.

decoder   the language model alone, on facts written as vision tokens
vision    the tower alone, on single temporal patches: to write those facts
together  both, on clips
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from jobs.demo_model.card import card
from jobs.demo_model.export import export
from jobs.demo_model.heads import FactEmbedding
from jobs.demo_model.language_stage import (
    DecoderLearner,
    Learner,
    train_decoder,
    train_together,
)
from jobs.demo_model.shape import demo_config, new_model
from jobs.demo_model.teacher import Teacher
from jobs.demo_model.trainer import Run
from jobs.demo_model.vision_stage import train_vision
from jobs.demo_model.vocabulary import CONTROL, load_tokenizer
from pipeline.model.qwen2_vl import Qwen2VL
from pipeline.model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Steps of each stage."""

    decoder_steps: int = 20_000
    vision_steps: int = 12_000
    together_steps: int = 12_000
    seed: int = 0


def train(
    folder: Path, budget: Budget, *, weights: Path | None = None, num_threads: int = 2
) -> None:
    """Train in `folder`, resuming what is there; averaged weights go to `weights` now and then."""
    torch.set_num_threads(num_threads)
    tokenizer = load_tokenizer()
    model = untrained(tokenizer, seed=budget.seed)
    facts, teacher = FactEmbedding(model.config.hidden_size), Teacher(model.config, tokenizer)
    seed = budget.seed
    if train_decoder(
        DecoderLearner(model.language, facts, teacher),
        folder / "decoder",
        num_steps=budget.decoder_steps,
        seed=seed,
        tokenizer=tokenizer,
    ):
        return
    seer, is_stopping = train_vision(
        model.vision, facts, folder / "vision", num_steps=budget.vision_steps, seed=seed
    )
    if is_stopping:
        return
    train_together(
        Learner(model, seer.heads, teacher),
        folder / "together",
        num_steps=budget.together_steps,
        seed=seed + 1,
        tokenizer=tokenizer,
        on_save=writer(tokenizer, weights or folder / "weights"),
    )


def untrained(tokenizer: Tokenizer, *, seed: int) -> Qwen2VL:
    ids = {token: tokenizer.control_id(token) for token in CONTROL}
    config = demo_config(vocab_size=max(ids.values()) + 1, special_ids=ids)
    return new_model(config, seed=seed)


def writer(tokenizer: Tokenizer, weights: Path) -> Callable[[Run], None]:
    """Writes a run's averaged weights as a checkpoint folder."""
    spare = untrained(tokenizer, seed=0)

    def write(run: Run) -> None:
        names = {name for name, _ in spare.named_parameters()}
        averaged = run.average.values
        spare.load_state_dict({name: averaged[f"model.{name}"] for name in names}, strict=False)
        export(spare, tokenizer, weights, card=card({}, num_clips=0))

    return write
