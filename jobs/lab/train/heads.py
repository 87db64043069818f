"""Facts of vision tokens, read from them and written as them; thrown away after training."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from jobs.demo.world import COLOURS, DIRECTIONS, KINDS
from jobs.lab.train.shape import initialise
from jobs.lab.train.targets import CELL, IGNORE, TokenTargets

SIZES = (1, 1, len(COLOURS), len(KINDS), 1 + len(DIRECTIONS), 2, 8)


@dataclass(slots=True)
class VisionScores:
    """What the heads make of a batch: the loss, and shares right or wrong."""

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
        wanted = {n: torch.from_numpy(getattr(targets, n)) for n in TokenTargets.__slots__}
        on = wanted["is_shape"].flatten() > 0
        wanted_seen = wanted["seen"].flatten(0, -2)[on]
        apart = boxes[on].unflatten(-1, (2, 4)) - wanted["boxes"].flatten(0, -3)[on]
        apart = apart[wanted_seen > 0]
        loss = _presence(is_shape, wanted["is_shape"]) + _presence(is_centre, wanted["is_centre"])
        for name, scores in (("colour", colour), ("kind", kind), ("motion", motion)):
            loss = loss + 0.5 * _choice(scores, wanted[name])
        if bool(on.any()):
            loss = loss + 0.3 * _presence(seen[on], wanted_seen)
            loss = loss + F.smooth_l1_loss(apart, torch.zeros_like(apart), beta=0.1)
        figures = {
            "colour": _share_right(colour, wanted["colour"]),
            "kind": _share_right(kind, wanted["kind"]),
            "motion": _share_right(motion, wanted["motion"]),
            "edge_px": apart.detach().abs().mean().item() * CELL if len(apart) else 0.0,
            "missed": _share_missed(is_shape, wanted["is_shape"]),
            "centre": _share_missed(is_centre, wanted["is_centre"]),
        }
        return VisionScores(loss, figures)


def _presence(scores: Tensor, wanted: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores.flatten(), wanted.flatten())


def _choice(scores: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy where there is a shape; 0 where there is none at all."""
    losses = F.cross_entropy(scores, wanted.flatten(), ignore_index=IGNORE, reduction="sum")
    return losses / (wanted != IGNORE).sum().clamp(min=1)


def _share_missed(scores: Tensor, wanted: Tensor) -> float:
    """Tokens on the wrong side, for each that should be on."""
    wrong = (scores.flatten() > 0) != (wanted.flatten() > 0)
    return wrong.sum().item() / max(wanted.sum().item(), 1.0)


def _share_right(scores: Tensor, wanted: Tensor) -> float:
    counts = wanted.flatten() != IGNORE
    right = scores.argmax(-1)[counts] == wanted.flatten()[counts]
    return right.float().mean().item() if len(right) else 1.0


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
    """Facts as token vectors: the language between the tower and the language model.

    Drawn once and never trained, so that both can learn it at the same time, apart.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.write = nn.Linear(sum(SIZES), hidden_size)
        initialise(self, seed=1)
        self.requires_grad_(False)

    def forward(self, targets: TokenTargets) -> Tensor:
        """targets of (B, M) tokens; returns (B, M, D)."""
        vectors: Tensor = self.write(facts_of(targets))
        return vectors
