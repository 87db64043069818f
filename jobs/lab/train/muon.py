"""Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) in float32.

torch.optim.Muon orthogonalises in bfloat16, which costs more than the whole training step on a CPU
without bfloat16 arithmetic.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalised momentum; for two-dimensional parameters only."""

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        *,
        rate: float,
        momentum: float = 0.95,
        weight_decay: float = 0.02,
    ) -> None:
        defaults = {"lr": rate, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(matrices, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Matrices of equal shape are orthogonalised as one batch."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                pushes = torch.stack([self._push(m, group["momentum"]) for m in matrices])
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for matrix, direction in zip(matrices, orthogonal(pushes), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(direction, alpha=-scale)

    def _push(self, matrix: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov momentum of one matrix."""
        gradient = torch.zeros_like(matrix) if matrix.grad is None else matrix.grad
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        held: Tensor = state["momentum"]
        held.lerp_(gradient, 1 - momentum)
        return gradient.lerp(held, momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values near 1: (B, rows, columns) alike."""
    a, b, c = NEWTON_SCHULZ
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NUM_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x
