"""M-RoPE: where every token stands in time, height and width, and the rotary tables of the places.

The rule is the paper's (arXiv 2409.12191, 2.1): text counts on all three axes together, a video
spreads over them, and whatever follows starts one past the largest position used so far.
"""

import torch
from torch import Tensor

from pipeline.types import ChunkSpan, Grid


def text_positions(start: int, length: int) -> Tensor:
    """Positions of a text run whose first token stands at `start`.

    returns: (3, S) int64, the three axes equal
    """
    return torch.arange(start, start + length).expand(3, length)


def video_positions(start: int, grid: Grid, *, span: ChunkSpan | None = None) -> Tensor:
    """Positions of a video's merged tokens, or of those of one chunk, in token order.

    start: the position after everything before the video. A chunk needs only the video's start and
    its own place in the plan, which is why prefill may run while the rest is still being decoded.
    returns: (3, M) int64, rows time, height, width
    """
    first, last = (0, grid.t) if span is None else (span.start, span.stop)
    if not 0 <= first < last <= grid.t:
        raise ValueError(f"temporal patches [{first}, {last}) are not in {grid}")
    axes = (
        torch.arange(first, last),
        torch.arange(grid.rows),
        torch.arange(grid.columns),
    )
    return start + torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)


def position_after_video(start: int, grid: Grid) -> int:
    """Position of the first token after a video: one past the largest on any axis."""
    return start + max(grid.t, grid.rows, grid.columns)


def inverse_frequencies(dim: int, theta: float, *, device: torch.device) -> Tensor:
    """Rotary frequencies theta ** (-2i / dim).

    returns: (dim / 2) float32, whatever the model's dtype: in bf16 far positions would coincide
    """
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim
    return 1.0 / theta**exponents


def multimodal_rotary(
    positions: Tensor, *, head_dim: int, theta: float, sections: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of M-RoPE: the frequencies are dealt to time, height, width by `sections`.

    positions: (3, S) integers
    returns: see `rotary_tables`
    """
    if positions.ndim != 2 or positions.shape[0] != 3:
        raise ValueError(f"positions must be (3, S), got {positions.shape = }")
    frequencies = inverse_frequencies(head_dim, theta, device=positions.device)
    angles = positions.float().unsqueeze(-1) * frequencies  # (3, S, head_dim / 2)
    dealt = torch.cat(
        [part[i] for i, part in enumerate(torch.split(angles, list(sections), -1))], dim=-1
    )
    return rotary_tables(dealt)


def rotary_tables(angles: Tensor) -> tuple[Tensor, Tensor]:
    """What `rotate` takes.

    angles: (S, head_dim / 2) float32, one for each pair
    returns: cosines (S, 1, head_dim), every angle's twice, and sines (S, 1, head_dim / 2)
    """
    angles = angles.unsqueeze(-2)
    return torch.cat((angles, angles), dim=-1).cos(), angles.sin()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + head_dim / 2) of every head by its angle.

    heads: (..., S, heads, head_dim); cos, sin: `rotary_tables`, in whose precision it is computed
    """
    half = heads.shape[-1] // 2
    turned = heads * cos  # the only large allocation: what the pair's other half adds goes in place
    turned[..., :half].addcmul_(heads[..., half:], sin, value=-1)
    turned[..., half:].addcmul_(heads[..., :half], sin)
    return turned.to(heads.dtype)
