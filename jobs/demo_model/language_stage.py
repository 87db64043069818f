"""Stage 2: the decoder joins, with many questions on every clip."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from jobs.demo_model.ahead import made_ahead
from jobs.demo_model.heads import VisionHeads
from jobs.demo_model.lessons import NUM_SETS, ClipBatch, Segment, make_clips
from jobs.demo_model.packed import Packing, pack, packed_hidden
from jobs.demo_model.questions import GRAIN, STEPS
from jobs.demo_model.targets import CELL
from jobs.demo_model.trainer import Averaged, Optimiser, Run, Schedule
from pipeline.model.qwen2_vl import Qwen2VL
from pipeline.model.tokenizer import Tokenizer
from pipeline.tasks.prompt import ChatLayout, Medium
from pipeline.types import MERGE, TEMPORAL, Grid

LAG = 12  # batches between the uses of one clip, each with other questions
MAX_SIDE = 12  # merged tokens
PLACE_LAYER, GRID_LAYER = 1, 2  # after these layers a token knows its place, a question the grid
GROWING = ((0, 4), (250, 6), (600, 10))  # clips get longer as batches go by
NEIGHBOUR = 0.8  # a coordinate next to the right one is nearly right: width in steps of GRAIN


@dataclass(slots=True)
class Lesson:
    """A batch of clips with one of its sets of questions; is_new on the clips' first use."""

    batch: ClipBatch
    clips: list[list[Segment]]
    is_new: bool


class Learner(nn.Module):
    """The whole model, and heads that are thrown away after training."""

    def __init__(
        self, model: Qwen2VL, heads: VisionHeads, tokenizer: Tokenizer, *, trains_tower: bool
    ) -> None:
        super().__init__()
        self.model, self.heads = model, heads
        self.trains_tower = trains_tower
        width = model.config.hidden_size
        self.place = nn.Linear(width, 2 * MAX_SIDE)
        self.grid = nn.Linear(width, 2 * MAX_SIDE)
        for part in (model.vision, heads):
            part.requires_grad_(trains_tower)
        self._prefix = ChatLayout(tokenizer).before_media([Medium.VIDEO])[0]
        values = [min(value, STEPS - 1) for value in range(0, STEPS + 1, GRAIN)]
        ids = [tokenizer.encode_text(str(value)) for value in values]
        self._number_ids = torch.tensor(ids).flatten()  # each is one token
        self._number_index = torch.full((model.config.vocab_size,), -1)
        self._number_index[self._number_ids] = torch.arange(len(values))
        apart = torch.arange(len(values))[:, None] - torch.arange(len(values))[None, :]
        near = torch.exp(-0.5 * (apart / NEIGHBOUR) ** 2)
        self._nearness = near / near.sum(1, keepdim=True)

    def loss_of(self, lesson: Lesson) -> tuple[Tensor, dict[str, float]]:
        """The loss of every answer's tokens, plus the auxiliary ones; figures for new clips."""
        frames = torch.from_numpy(lesson.batch.frames)
        num_frames, height, width = frames.shape[1:4]
        grid = Grid(num_frames // TEMPORAL, height // CELL * MERGE, width // CELL * MERGE)
        with torch.set_grad_enabled(self.trains_tower):
            tokens = self.model.vision(frames)
            aux = self.heads(tokens, lesson.batch.targets) if self.trains_tower else None
        packing = pack(lesson.clips)
        states, text_start = packed_hidden(
            self.model.language, tokens, grid, prefix=self._prefix, packing=packing
        )
        answer_loss, figures = self._answers(states[-1][:, text_start:], packing, lesson)
        loss = answer_loss + 0.3 * self._places(states, packing, grid, text_start)
        if aux is not None:
            loss = loss + 0.3 * aux.loss
            figures |= {f"vision_{name}": value for name, value in aux.figures.items()}
        return loss, figures

    def _answers(
        self, hidden: Tensor, packing: Packing, lesson: Lesson
    ) -> tuple[Tensor, dict[str, float]]:
        rows, columns, spans = [], [], []
        for row, clip in enumerate(lesson.clips):
            start = 0
            for segment in clip:
                stop = start + len(segment.ids)
                first = start + segment.answer_start
                spans.append((segment.kind, len(rows), stop - first))
                rows += [row] * (stop - first)
                columns += range(first, stop)
                start = stop
        row, column = torch.tensor(rows), torch.tensor(columns)
        logits = self.model.language.logits(hidden[row, column - 1])
        wanted = packing.ids[row, column]
        log_p = F.log_softmax(logits, dim=-1)
        losses = -log_p.gather(1, wanted[:, None]).squeeze(1)
        number = self._number_index[wanted]
        is_number = number >= 0
        # The soft targets of coordinates: "0" to "3" as an answer never stand in brackets.
        is_box = torch.tensor([kind == "find" for kind, _, n in spans for _ in range(n)])
        soft = is_number & is_box
        near = self._nearness[number[soft]]
        losses[soft] = -(near * log_p[soft][:, self._number_ids]).sum(1)
        figures = {"answer_loss": losses.mean().item()}
        if lesson.is_new:
            with torch.no_grad():
                figures |= self._figures(logits.argmax(-1), wanted, spans)
        return losses.mean(), figures

    def _figures(
        self, chosen: Tensor, wanted: Tensor, spans: Sequence[tuple[str, int, int]]
    ) -> dict[str, float]:
        """Share of answers exactly right, by kind; boxes by their overlap with the truth."""
        right: dict[str, list[float]] = defaultdict(list)
        for kind, start, length in spans:
            own, truth = chosen[start : start + length], wanted[start : start + length]
            if kind != "find":
                right[kind].append(float(torch.equal(own, truth)))
                continue
            at = self._number_index[truth] >= 0
            right["iou"].append(
                _overlap(self._number_index[own[at]], self._number_index[truth[at]])
            )
        return {kind: sum(values) / len(values) for kind, values in right.items()}

    def _places(
        self, states: list[Tensor], packing: Packing, grid: Grid, text_start: int
    ) -> Tensor:
        """Where a token stands, and how large the grid is: what boxes are computed from."""
        rows, columns = grid.h // MERGE, grid.w // MERGE
        batch = packing.ids.shape[0]
        video = states[PLACE_LAYER][:, text_start - grid.num_tokens : text_start]
        row_scores, column_scores = self.place(video).chunk(2, dim=-1)
        row = torch.arange(rows).repeat_interleave(columns).repeat(batch * grid.t)
        column = torch.arange(columns).repeat(batch * grid.t * rows)
        asked = states[GRID_LAYER][:, text_start:][packing.position == 0]
        height_scores, width_scores = self.grid(asked).chunk(2, dim=-1)
        return (
            F.cross_entropy(row_scores.flatten(0, 1), row)
            + F.cross_entropy(column_scores.flatten(0, 1), column)
            + F.cross_entropy(height_scores, torch.full((len(asked),), rows))
            + F.cross_entropy(width_scores, torch.full((len(asked),), columns))
        )


def _overlap(own: Tensor, truth: Tensor) -> float:
    """Intersection over union of two boxes of four indices each; 0 if one is no box."""
    if own.numel() != 4 or bool((own < 0).any()):
        return 0.0
    low, high = torch.maximum(own[:2], truth[:2]), torch.minimum(own[2:], truth[2:])
    shared = (high - low).clamp(min=0).prod()
    areas = (own[2:] - own[:2]).clamp(min=0).prod() + (truth[2:] - truth[:2]).prod()
    return float(shared / (areas - shared).clamp(min=1))


def new_run(learner: Learner, folder: Path, *, num_steps: int, rate: float = 1.0) -> Run:
    """A run of this learner, resumed if the folder has one."""
    schedule = Schedule(num_steps=num_steps, peak=rate)
    run = Run(folder, learner, Optimiser(learner), schedule, Averaged(learner))
    run.resume()
    return run


def train_language(
    run: Run,
    learner: Learner,
    *,
    seed: int,
    tokenizer: Tokenizer,
    longest: tuple[tuple[int, int], ...] = GROWING,
    on_save: Callable[[Run], None] | None = None,
) -> None:
    """Train from the run's step to its schedule's end. longest: see make_clips."""
    make = partial(make_clips, seed, tokenizer_json=tokenizer.json, longest=longest)
    run.train(lessons(make, run.step), learner.loss_of, on_save)


def lessons(make: "partial[ClipBatch]", step: int) -> Iterator[Lesson]:
    """Lessons from a step on: in every NUM_SETS steps a new batch, and older ones asked anew."""
    fresh = step // NUM_SETS
    first = max(0, fresh - LAG * (NUM_SETS - 1))
    recent: list[ClipBatch] = []
    for index, batch in enumerate(made_ahead(make, first), first):
        recent = [*recent[-LAG * (NUM_SETS - 1) :], batch]
        if index < fresh:
            continue
        skip = step % NUM_SETS if index == fresh else 0
        for use in range(skip, NUM_SETS):
            old = recent[max(0, len(recent) - 1 - LAG * use)]
            yield Lesson(old, old.sets[use], is_new=use == 0)
