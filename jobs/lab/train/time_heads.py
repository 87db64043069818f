"""When things are there: what the language model is taught about time besides its answers' words.

What vanishes between two temporal patches leaves no mark where it was: a causal model finds out
only by comparing a patch with the one before, and that a patch is the last one only by knowing how
many there are. Told by its answers alone, it got such events half right. And what comes late is
named in the order of where it came, long after shapes that have moved away from where they were:
three in four of the captions that were still wrong had such a shape.
"""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from jobs.demo.world import COLOURS, DIRECTIONS, KINDS
from jobs.lab.train.gaze import Gazes
from jobs.lab.train.lessons import ClipBatch
from jobs.lab.train.packed import Passed
from jobs.lab.train.shape import initialise
from jobs.lab.train.targets import IGNORE, TokenTargets

MAX_STEPS = 10
NUM_NAMES = len(COLOURS) * len(KINDS)
RARE = 5.0  # most names neither come nor go
# After these layers a video token knows its step, a question how many there are, a step's last
# token what came and went, a shape's token where that shape was first seen, and whoever speaks of a
# shape whether it was there first and last, and which way it moves.
STEP_LAYER, LENGTH_LAYER, CHANGE_LAYER, ORIGIN_LAYER, EVENT_LAYER = 1, 2, 3, 3, 4


class TimeHeads(nn.Module):
    """Heads that are thrown away after training."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.step = nn.Linear(hidden_size, MAX_STEPS)
        self.length = nn.Linear(hidden_size, MAX_STEPS)
        self.changes = nn.Linear(hidden_size, 2 * (len(COLOURS) + len(KINDS)))
        self.events = nn.Linear(hidden_size, 2)
        self.origins = nn.Linear(hidden_size, 1)
        self.motion = nn.Linear(hidden_size, 1 + len(DIRECTIONS))
        for seed, head in enumerate(self.children()):
            initialise(head, seed=seed)

    def forward(self, passed: Passed, batch: ClipBatch, spoken: Gazes) -> dict[str, Tensor]:
        """The losses by name. spoken: the shapes that answers speak of, and where."""
        return {
            "when": self._steps(passed, batch),
            "length": self._length(passed, batch),
            "changes": self._changes(passed, batch),
            "events": self._events(passed, batch, spoken),
            "origins": self._origins(passed, batch),
            "motion": self._motion(passed, batch, spoken),
        }

    def _steps(self, passed: Passed, batch: ClipBatch) -> Tensor:
        scores = self.step(passed.video(STEP_LAYER, batch.grid))
        step = torch.arange(batch.grid.t).repeat_interleave(batch.grid.num_tokens // batch.grid.t)
        return F.cross_entropy(scores.flatten(0, 1), step.repeat(len(scores)))

    def _length(self, passed: Passed, batch: ClipBatch) -> Tensor:
        scores = self.length(passed.first_words(LENGTH_LAYER))
        return F.cross_entropy(scores, torch.full((len(scores),), batch.grid.t - 1))

    def _changes(self, passed: Passed, batch: ClipBatch) -> Tensor:
        """Colours and kinds of what came and of what went, at the last token of each step."""
        video = passed.video(CHANGE_LAYER, batch.grid).unflatten(1, (batch.grid.t, -1))
        wanted = torch.from_numpy(changes(batch.targets, batch.grid.t))
        rare = torch.tensor(RARE)
        return F.binary_cross_entropy_with_logits(
            self.changes(video[:, :, -1]), wanted, pos_weight=rare
        )

    def _events(self, passed: Passed, batch: ClipBatch, spoken: Gazes) -> Tensor:
        """Whether what is spoken of is missing from the first frame, and from the last."""
        found = spoken.found.any(1)
        if not found.any():
            return torch.zeros(())
        rows, places = spoken.rows[found], spoken.places[found]
        seen = torch.from_numpy(batch.targets.seen)[rows] * spoken.found[found][..., None]
        by_step = seen.unflatten(1, (batch.grid.t, -1)).amax(2)  # (N, T, 2)
        missing = 1 - torch.stack((by_step[:, 0, 0], by_step[:, -1, 1]), dim=-1)
        states = passed.text(EVENT_LAYER, rows, places)
        return F.binary_cross_entropy_with_logits(self.events(states), missing)

    def _origins(self, passed: Passed, batch: ClipBatch) -> Tensor:
        """How far off a shape's tokens place the x where it was first seen, in tokens."""
        on = torch.from_numpy(batch.targets.is_shape) > 0
        if not on.any():
            return torch.zeros(())
        said = self.origins(passed.video(ORIGIN_LAYER, batch.grid)[on]).squeeze(-1)
        wanted = first_x(batch.targets, batch.grid.t, batch.grid.columns)
        return F.smooth_l1_loss(said, torch.from_numpy(wanted)[on], beta=0.2)

    def _motion(self, passed: Passed, batch: ClipBatch, spoken: Gazes) -> Tensor:
        """Which way the shape that is spoken of moves."""
        motion = torch.from_numpy(batch.targets.motion)[spoken.rows]
        known = spoken.found & (motion != IGNORE)
        on = known.any(1)
        if not on.any():
            return torch.zeros(())
        wanted = motion.masked_fill(~known, IGNORE).amax(1)[on]
        states = passed.text(EVENT_LAYER, spoken.rows[on], spoken.places[on])
        return F.cross_entropy(self.motion(states), wanted)


def first_x(targets: TokenTargets, num_steps: int, num_columns: int) -> np.ndarray:
    """Of every shape's token, the x of that shape's centre when it was first seen, in tokens.

    returns: (B, M) float32, 0 where no shape is
    """
    batch, num_tokens = targets.is_shape.shape
    clip, token, frame = np.nonzero(targets.seen)
    step, column = token // (num_tokens // num_steps), token % num_columns
    left, right = targets.boxes[clip, token, frame, 0], targets.boxes[clip, token, frame, 2]
    x = column + 0.5 + (left + right) / 2
    name = targets.colour * len(KINDS) + targets.kind
    first = np.zeros((batch, NUM_NAMES), np.float32)
    latest_first = np.argsort(-(2 * step + frame), kind="stable")  # the earliest is written last
    at = clip[latest_first], token[latest_first]
    first[at[0], name[at]] = x[latest_first]
    on = targets.is_shape > 0
    found = np.zeros((batch, num_tokens), np.float32)
    found[on] = first[np.nonzero(on)[0], name[on]]
    return found


def changes(targets: TokenTargets, num_steps: int) -> np.ndarray:
    """Colours and kinds of the shapes that come, then of those that go: (B, T, 24) float32.

    A shape comes in the step whose last frame has it while the step before did not end with it,
    and goes in the step whose last frame lacks it.
    """
    there = _names_seen(targets, num_steps)  # (B, 2 T, names)
    first, last = there[:, ::2], there[:, 1::2]
    before = np.concatenate([there[:, :1], last[:, :-1]], axis=1)  # nothing comes in frame 0
    came = (first | last) & ~before
    went = (before | first) & ~last
    return np.concatenate([_words(came), _words(went)], axis=-1, dtype=np.float32)


def _names_seen(targets: TokenTargets, num_steps: int) -> np.ndarray:
    """Which names each frame shows: (B, 2 T, colours x kinds) bool."""
    batch, num_tokens = targets.is_shape.shape
    seen = np.zeros((batch, 2 * num_steps, NUM_NAMES), bool)
    clip, token = np.nonzero(targets.is_shape)
    name = targets.colour[clip, token] * len(KINDS) + targets.kind[clip, token]
    step = token // (num_tokens // num_steps)
    for frame in (0, 1):
        on = targets.seen[clip, token, frame] > 0
        seen[clip[on], 2 * step[on] + frame, name[on]] = True
    return seen


def _words(names: np.ndarray) -> np.ndarray:
    """(..., colours x kinds) to (..., colours + kinds)."""
    table = names.reshape(*names.shape[:-1], len(COLOURS), len(KINDS))
    return np.concatenate([table.any(-1), table.any(-2)], axis=-1)
