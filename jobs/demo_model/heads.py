"""Facts of vision tokens, read from them and written as them; thrown away after training."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from jobs.demo_model.shape import initialise
from jobs.demo_model.targets import IGNORE, TokenTargets
from jobs.demo_model.world import COLOURS, DIRECTIONS, KINDS

SIZES = (1, 1, len(COLOURS), len(KINDS), 1 + len(DIRECTIONS), 2, 8)


@dataclass(slots=True)
class VisionScores:
    """Summed over the tokens that count; divide by their number."""

    loss: Tensor
    figures: dict[str, float]


class VisionHeads(nn.Module):
    """One linear layer that reads every fact of a token: tokens (..., D)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.read = nn.Linear(hidden_size, sum(SIZES))
        initialise(self, seed=0)

    def forward(self, tokens: Tensor, targets: TokenTargets) -> VisionScores:
        """tokens: (B, M, D), targets alike."""
        read = self.read(self.norm(tokens)).flatten(0, -2)
        is_shape, is_centre, colour, kind, motion, seen, boxes = read.split(SIZES, dim=-1)
        t = {n: torch.from_numpy(getattr(targets, n)) for n in TokenTargets.__slots__}
        on = t["is_shape"].flatten() > 0
        count = max(int(on.sum()), 1)
        want_seen = t["seen"].flatten(0, -2)[on]
        apart = boxes[on].unflatten(-1, (2, 4)) - t["boxes"].flatten(0, -3)[on]
        apart = apart[want_seen > 0]
        wanted = {n: t[n].flatten() for n in ("colour", "kind", "motion")}
        guessed = {"colour": colour, "kind": kind, "motion": motion}
        bce = F.binary_cross_entropy_with_logits
        loss = bce(is_shape.squeeze(-1), t["is_shape"].flatten())
        loss = loss + bce(is_centre.squeeze(-1), t["is_centre"].flatten())
        for name, guess in guessed.items():
            if bool((wanted[name] != IGNORE).any()):
                loss = loss + 0.5 * F.cross_entropy(guess, wanted[name], ignore_index=IGNORE)
        if bool(on.any()):
            loss = loss + 0.3 * bce(seen[on], want_seen)
            loss = loss + F.smooth_l1_loss(apart, torch.zeros_like(apart), beta=0.1)
        with torch.no_grad():
            figures = {name: _share_right(guess, wanted[name]) for name, guess in guessed.items()}
            figures["edge_px"] = float(apart.abs().mean() * 28) if len(apart) else 0.0
            figures["missed"] = float(((is_shape.squeeze(-1) > 0) != on).sum()) / count
            figures["centre"] = float(
                ((is_centre > 0) != (t["is_centre"].flatten() > 0)[:, None]).sum()
            ) / max(float(t["is_centre"].sum()), 1.0)
        return VisionScores(loss, figures)


def _share_right(guess: Tensor, wanted: Tensor) -> float:
    counts = wanted != IGNORE
    return float((guess.argmax(-1) == wanted)[counts].float().mean()) if bool(counts.any()) else 1.0


def facts_of(targets: TokenTargets) -> Tensor:
    """What a token should say, as one vector: (..., M, sum(SIZES)); zero where nothing is."""
    columns = [targets.is_shape[..., None], targets.is_centre[..., None]]
    for values, size in ((targets.colour, SIZES[2]), (targets.kind, SIZES[3])):
        columns.append(np.equal(values[..., None], np.arange(size)))
    columns.append(np.equal(targets.motion[..., None], np.arange(SIZES[4])))
    columns += [
        targets.seen,
        (targets.boxes * targets.seen[..., None]).reshape(*targets.seen.shape[:-1], 8),
    ]
    return torch.from_numpy(np.concatenate(columns, axis=-1, dtype=np.float32))


class FactEmbedding(nn.Module):
    """Facts as token vectors: the language between the tower and the language model."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.write = nn.Linear(sum(SIZES), hidden_size)
        initialise(self, seed=1)

    def forward(self, targets: TokenTargets) -> Tensor:
        """targets of (B, M) tokens; returns (B, M, D)."""
        vectors: Tensor = self.write(facts_of(targets))
        return vectors
