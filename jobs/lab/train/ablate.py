"""What two choices of Qwen2-VL are worth to vidray-demo, by training without them for as long.

positions    the language model on facts, with three-dimensional (M-RoPE) or plain positions
resolution   the tower alone, on pictures that keep their shape or are squeezed into one square

Both sides see the same scenes in the same order, none twice, so the figures of the last batches are
of scenes never seen before.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import torch
from rich.table import Table
from torch import Tensor, nn

from jobs.lab.train.dataset import make_pairs
from jobs.lab.train.heads import FactEmbedding
from jobs.lab.train.language_stage import DecoderLearner
from jobs.lab.train.lessons import make_clips
from jobs.lab.train.made_ahead import made_ahead
from jobs.lab.train.targets import CELL
from jobs.lab.train.teacher import Teacher
from jobs.lab.train.train import untrained
from jobs.lab.train.trainer import Optimiser, RateSchedule
from jobs.lab.train.vision_stage import BATCH_SIZE, VisionLearner
from jobs.lab.train.vocabulary import load_tokenizer
from pipeline.families.qwen2_vl.positions import text_positions, video_positions
from pipeline.types import Grid, Size

Batch = TypeVar("Batch")
Figures = dict[str, float]

SQUARE = Size(6 * CELL, 6 * CELL)  # 36 tokens; pictures that keep their shape have 20 to 40
FOUR_STEPS = ((0, 4),)
LAST_SHARE = 0.2  # of the batches, over which figures are meant


def ablate(*, num_steps: int, num_threads: int) -> Iterator[tuple[str, dict[str, Figures]]]:
    """Yield each choice and the figures of its two sides."""
    torch.set_num_threads(num_threads)
    yield (
        "positions",
        {
            "M-RoPE": decoder_figures(video_positions, num_steps=num_steps),
            "one-dimensional": decoder_figures(plain_positions, num_steps=num_steps),
        },
    )
    yield (
        "resolution",
        {
            "dynamic": vision_figures(None, num_steps=num_steps),
            "fixed": vision_figures(SQUARE, num_steps=num_steps),
        },
    )


def plain_positions(start: int, grid: Grid) -> Tensor:
    """Video tokens counted one by one, as if they were words: (3, M)."""
    return text_positions(start, grid.num_tokens)


def decoder_figures(positions: Callable[[int, Grid], Tensor], *, num_steps: int) -> Figures:
    tokenizer = load_tokenizer()
    model = untrained(tokenizer, seed=0)
    teacher = Teacher(model.config, tokenizer, positions=positions)
    learner = DecoderLearner(model.language, FactEmbedding(model.config.hidden_size), teacher)
    make = partial(make_clips, 0, tokenizer_json=tokenizer.json, longest=FOUR_STEPS, is_drawn=False)
    return last_figures(learner, made_ahead(make, 0), learner.loss_of, num_steps=num_steps)


def vision_figures(fixed_size: Size | None, *, num_steps: int) -> Figures:
    tower = untrained(load_tokenizer(), seed=0).vision
    learner = VisionLearner(tower, FactEmbedding(tower.config.hidden_size))
    make = partial(make_pairs, 0, batch_size=BATCH_SIZE, fixed_size=fixed_size)
    return last_figures(learner, made_ahead(make, 0), learner.loss_of, num_steps=num_steps)


def last_figures(
    learner: nn.Module,
    batches: Iterator[Batch],
    loss_of: Callable[[Batch], tuple[Tensor, Figures]],
    *,
    num_steps: int,
) -> Figures:
    """Train for num_steps; the means of what the last batches' figures were."""
    optimiser, schedule = Optimiser(learner), RateSchedule(num_steps=num_steps)
    seen: dict[str, list[float]] = defaultdict(list)
    for step, batch in zip(range(num_steps), batches, strict=False):
        loss, figures = loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimiser.step(schedule.at(step))
        if step >= num_steps * (1 - LAST_SHARE):
            for name, value in figures.items():
                seen[name].append(value)
    return {name: sum(values) / len(values) for name, values in seen.items()}


def table(choice: str, sides: dict[str, Figures]) -> Table:
    """A row for each figure, a column for each side."""
    shown = Table(choice, *sides)
    for name in dict.fromkeys(name for figures in sides.values() for name in figures):
        shown.add_row(
            name, *(f"{figures.get(name, float('nan')):.3f}" for figures in sides.values())
        )
    return shown
