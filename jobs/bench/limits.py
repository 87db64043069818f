"""What this machine can do at most, for the very shapes a model uses: the bar behind the ratios."""

import torch
from torch import Tensor

from jobs.bench.measure import interleaved


def matmul_seconds(shapes: list[tuple[int, int, int]], *, rounds: int = 3) -> float:
    """Seconds of bare fp32 matmuls (M, K) @ (N, K).T one after another: a floor for the layers.

    Every distinct shape is timed once and counted as often as it occurs.
    """
    distinct = {shape: _operands(*shape) for shape in set(shapes)}
    with torch.inference_mode():
        seconds = interleaved(
            {
                str(shape): lambda a=a, b=b: torch.nn.functional.linear(a, b)
                for shape, (a, b) in distinct.items()
            },
            rounds=rounds,
        )
    return sum(seconds[str(shape)] for shape in shapes)


def read_bytes_per_second(*, size_bytes: int = 512 << 20, rounds: int = 5) -> float:
    """Bytes per second at which all threads together can stream fp32 weights from memory."""
    words = torch.ones(size_bytes // 4)
    seconds = interleaved({"read": lambda: torch.sum(words)}, rounds=rounds)
    return size_bytes / seconds["read"]


def _operands(m: int, k: int, n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(m, k), torch.randn(n, k)
