"""What the language model is taught: the words of every answer, and where things stand."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from jobs.demo.questions import GRAIN, STEPS
from jobs.lab.train.gaze import Gazes, meant
from jobs.lab.train.lessons import ClipBatch, LessonSegment
from jobs.lab.train.packed import Passed, pack, packed_hidden
from jobs.lab.train.shape import initialise
from jobs.lab.train.time_heads import TimeHeads
from pipeline.config import ModelConfig
from pipeline.families.qwen2_vl.chat import ChatLayout, Medium
from pipeline.families.qwen2_vl.positions import video_positions
from pipeline.model.language import LanguageModel
from pipeline.model.tokenizer import Tokenizer
from pipeline.types import Grid

PLACES = 0.3  # weight of the auxiliary losses beside the answers'
MAX_SIDE = 12  # merged tokens
BOXES = 5.0  # their errors are small
TIMES = 1.0
# After these layers a token knows its place, a question the grid, a token its shape's edges, and
# whoever writes a box the whole of it.
PLACE_LAYER, GRID_LAYER, EDGE_LAYER, BOX_LAYER = 1, 2, 2, 4
# (layer, key-value head) whose heads look at what the question, and what the answer, is about: in
# all steps, in the first, in the last.
LOOK_ASKED, LOOK_ANSWERED, LOOK_FIRST, LOOK_LAST = (2, 0), (4, 0), (4, 1), (4, 2)
LOOKS = 0.3  # weight of looking beside the answers'
NEIGHBOUR = 0.8  # a coordinate next to the right one is nearly right: width in steps of GRAIN


class Teacher(nn.Module):
    """The loss of answers to packed questions; its heads are thrown away after training."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        *,
        positions: Callable[[int, Grid], Tensor] = video_positions,
    ) -> None:
        super().__init__()
        self._positions = positions
        self.place = nn.Linear(config.hidden_size, 2 * MAX_SIDE)
        self.grid = nn.Linear(config.hidden_size, 2 * MAX_SIDE)
        self.edges = nn.Linear(config.hidden_size, 2 * 4)
        self.box = nn.Linear(config.hidden_size, 4)
        heads = (self.place, self.grid, self.edges, self.box)
        for seed, head in enumerate(heads):
            initialise(head, seed=seed)
        self.clock = TimeHeads(config.hidden_size)
        self._prefix = ChatLayout(tokenizer).before_media([Medium.VIDEO])[0]
        values = [min(value, STEPS - 1) for value in range(0, STEPS + 1, GRAIN)]
        ids = [tokenizer.encode_text(str(value)) for value in values]
        self._number_ids = torch.tensor(ids).flatten()  # each is one token
        self._number_index = torch.full((config.vocab_size,), -1)
        self._number_index[self._number_ids] = torch.arange(len(values))
        apart = torch.arange(len(values))[:, None] - torch.arange(len(values))[None, :]
        near = torch.exp(-0.5 * (apart / NEIGHBOUR) ** 2)
        self._nearness = near / near.sum(1, keepdim=True)

    def forward(
        self, language: LanguageModel, video: Tensor, batch: ClipBatch
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of every answer's tokens and of places, and how much was right.

        video: (B, M, D), the clips' tokens
        """
        packing, grid = pack(batch.asked), batch.grid
        passed = packed_hidden(
            language,
            video,
            grid,
            prefix=self._prefix,
            packing=packing,
            positions=self._positions,
        )
        loss, figures = self._answers(language, passed, batch.asked)
        asked, answered = (gathered_looks(batch, name) for name in ("asked", "answered"))
        lessons = {
            "places": (PLACES, self._places(passed, grid)),
            "edges": (PLACES, self._edges(passed, batch)),
            "box": (BOXES, self._boxes(passed, batch.asked)),
            "look_asked": (LOOKS, looked_away(passed, LOOK_ASKED, asked, grid)),
            "look_answered": (LOOKS, looked_away(passed, LOOK_ANSWERED, answered, grid)),
        }
        for name, where, step in (("first", LOOK_FIRST, 0), ("last", LOOK_LAST, -1)):
            gazes = answered.at_step(step, grid.t)
            lessons[f"look_{name}"] = (LOOKS, looked_away(passed, where, gazes, grid))
        for name, missed in self.clock(passed, batch, answered).items():
            lessons[name] = (TIMES, missed)
        for name, (weight, missed) in lessons.items():
            loss = loss + weight * missed
            figures[name] = missed.item()
        return loss, figures

    def _answers(
        self,
        language: LanguageModel,
        passed: Passed,
        asked: Sequence[Sequence[LessonSegment]],
    ) -> tuple[Tensor, dict[str, float]]:
        hidden = passed.states[-1][:, passed.text_start :]
        rows: list[int] = []
        columns: list[int] = []
        spans: list[tuple[str, int, int]] = []
        for row, clip in enumerate(asked):
            start = 0
            for segment in clip:
                stop = start + len(segment.ids)
                first = start + segment.answer_start
                spans.append((segment.kind, len(rows), stop - first))
                rows += [row] * (stop - first)
                columns += range(first, stop)
                start = stop
        where = (torch.tensor(rows), torch.tensor(columns))
        logits = language.logits(hidden[where[0], where[1] - 1])
        wanted = passed.packing.ids[where]
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
        figures |= self._figures(logits.detach().argmax(-1), wanted, spans)
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

    def _places(self, passed: Passed, grid: Grid) -> Tensor:
        """Where a token stands, and how large the grid is: what boxes are computed from."""
        rows, columns = grid.rows, grid.columns
        video = passed.video(PLACE_LAYER, grid)
        row_scores, column_scores = self.place(video).chunk(2, dim=-1)
        row = torch.arange(rows).repeat_interleave(columns).repeat(len(video) * grid.t)
        column = torch.arange(columns).repeat(len(video) * grid.t * rows)
        asked = passed.first_words(GRID_LAYER)
        height_scores, width_scores = self.grid(asked).chunk(2, dim=-1)
        return (
            F.cross_entropy(row_scores.flatten(0, 1), row)
            + F.cross_entropy(column_scores.flatten(0, 1), column)
            + F.cross_entropy(height_scores, torch.full((len(asked),), rows))
            + F.cross_entropy(width_scores, torch.full((len(asked),), columns))
        )

    def _boxes(self, passed: Passed, asked: Sequence[Sequence[LessonSegment]]) -> Tensor:
        """Mean error of the box that is being written, as fractions of the picture's sides."""
        rows: list[int] = []
        places: list[int] = []
        wanted: list[Tensor] = []
        for row, clip in enumerate(asked):
            start = 0
            for segment in clip:
                if segment.kind == "find":
                    numbers = self._number_index[torch.tensor(segment.ids[segment.answer_start :])]
                    said = range(start + segment.answer_start - 1, start + len(segment.ids) - 1)
                    rows += [row] * len(said)
                    places += said
                    wanted += [numbers[numbers >= 0] * GRAIN / STEPS] * len(said)
                start += len(segment.ids)
        if not rows:
            return torch.zeros(())
        states = passed.text(BOX_LAYER, torch.tensor(rows), torch.tensor(places))
        return F.smooth_l1_loss(self.box(states), torch.stack(wanted), beta=0.02)

    def _edges(self, passed: Passed, batch: ClipBatch) -> Tensor:
        """Mean error of edges counted from the picture's corner, in tokens: place plus offset."""
        rows, columns = batch.grid.rows, batch.grid.columns
        row = torch.arange(rows).repeat_interleave(columns).repeat(batch.grid.t) + 0.5
        column = torch.arange(columns).repeat(batch.grid.t * rows) + 0.5
        centre = torch.stack((column, row, column, row), dim=-1)  # (M, 4)
        seen = torch.from_numpy(batch.targets.seen) > 0  # (B, M, 2)
        wanted = torch.from_numpy(batch.targets.boxes) + centre[:, None]  # (B, M, 2, 4)
        said = self.edges(passed.video(EDGE_LAYER, batch.grid)).unflatten(-1, (2, 4))
        missed = F.smooth_l1_loss(said, wanted, beta=0.2, reduction="none")[seen]
        return missed.sum() / max(missed.numel(), 1)


def looked_away(passed: Passed, where: tuple[int, int], gazes: Gazes, grid: Grid) -> Tensor:
    """How far attention is from what words mean; what is not there is looked for nowhere.

    where: the layer and the key-value head
    """
    if not len(gazes.rows):
        return torch.zeros(())
    start = passed.text_start - grid.num_tokens
    nowhere = start - 1  # the control token before the video
    there = torch.zeros(len(gazes.rows), passed.states[0].shape[1], dtype=torch.bool)
    there[:, start : passed.text_start] = gazes.found
    there[:, nowhere] = ~gazes.found.any(1)
    layer, group = where
    log_p = passed.attention(layer, gazes.rows, gazes.places, group=group)
    return -log_p.masked_fill(~there[:, None], float("-inf")).logsumexp(-1).mean()


def gathered_looks(batch: ClipBatch, name: str) -> Gazes:
    """Of every segment of every clip, its looks of that name."""
    rows, places, found = [], [], []
    for row, clip in enumerate(batch.asked):
        start = 0
        for segment in clip:
            for look in getattr(segment, name):
                rows.append(row)
                places.append(start + look.place)
                found.append(meant(look, batch.targets, row))
            start += len(segment.ids)
    masks = np.stack(found) if found else np.zeros((0, batch.grid.num_tokens), bool)
    return Gazes(torch.tensor(rows), torch.tensor(places), torch.from_numpy(masks))


def _overlap(own: Tensor, truth: Tensor) -> float:
    """Intersection over union of two boxes of four indices each; 0 if one is no box."""
    if own.numel() != 4 or bool((own < 0).any()):
        return 0.0
    low, high = torch.maximum(own[:2], truth[:2]), torch.minimum(own[2:], truth[2:])
    shared = (high - low).clamp(min=0).prod()
    areas = (own[2:] - own[:2]).clamp(min=0).prod() + (truth[2:] - truth[:2]).prod()
    return float(shared / (areas - shared).clamp(min=1))
