"""What this machine can do at most, for the very shapes a model uses: the bar behind the ratios."""

import torch

from jobs.timing import interleaved


def matmul_seconds(shapes: list[tuple[int, int, int]], *, rounds: int = 3) -> float:
    """Seconds of bare fp32 matmuls (M, K) @ (N, K).T one after another: a floor for the layers.

    Every distinct shape is timed once, by MKL and by oneDNN; the faster one counts as often as the
    shape occurs.
    """
    with torch.inference_mode():
        fastest = {shape: _seconds_of(*shape, rounds=rounds) for shape in set(shapes)}
    return sum(fastest[shape] for shape in shapes)


def _seconds_of(m: int, k: int, n: int, *, rounds: int) -> float:
    x, weight = torch.randn(m, k), torch.randn(n, k)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    candidates = {
        "MKL": lambda: torch.nn.functional.linear(x, weight),
        "oneDNN": lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""),
    }
    return min(interleaved(candidates, rounds=rounds).values())


def read_bytes_per_second(*, size_bytes: int = 512 << 20, rounds: int = 5) -> float:
    """Bytes per second at which all threads together can stream fp32 weights from memory."""
    words = torch.ones(size_bytes // 4)
    seconds = interleaved({"read": lambda: torch.sum(words)}, rounds=rounds)
    return size_bytes / seconds["read"]
