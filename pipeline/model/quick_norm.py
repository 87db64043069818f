"""RMSNorm of float32 rows on a CPU in four operations, each of which passes over a row once.

torch's own is seven there. For a word, an operation costs the same however little it computes; for
a chunk, every result that is kept for the next one costs the memory's time.
"""

import math

import torch
from torch import Tensor, nn

from pipeline.model.language import LanguageModel, Norm


class QuickNorm(nn.Module):
    """What a Norm computes, without a gradient. x: (S, D) float32."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        size = norm.weight.numel()
        self.weight = nn.Parameter(norm.weight.detach() * math.sqrt(size), requires_grad=False)
        self._least = torch.tensor(math.sqrt(size * norm.eps))

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, 2, -1, keepdim=True)
        return torch.div(x, torch.hypot(length, self._least)).mul_(self.weight)


def quicken_norms(model: LanguageModel) -> None:
    """Put quick ones in the place of a loaded model's norms, where they are quick."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Norm) and _gains(child.weight):
                setattr(parent, name, QuickNorm(child))


def _gains(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32
