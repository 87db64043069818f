"""A slice: some consecutive tokens of a window, on their way into vLLM.

vLLM knows a piece of video by a name alone, and asks the model where its tokens stand. So the name
says all of it: what is in the slice (a digest) and which part of which grid it is. By that name
vLLM finds keys and values that it has, and a question over a video whose slices it has carries
their names, without their tensors.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.families.qwen2_vl.positions import (
    position_after_video,
    text_positions,
    video_positions,
)
from pipeline.types import Geometry, Grid

MERGED = Geometry(patch=1, merge=1, temporal=1)  # grids are counted in tokens here
_NAME = re.compile(r"vidray:(\w+):(\d+)x(\d+)x(\d+):(\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class TokenSlice:
    """Tokens [start, stop) of a window of t x rows x columns tokens, and a digest of them."""

    digest: str
    t: int
    rows: int
    columns: int
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= self.grid.num_tokens:
            raise ValueError(f"tokens [{self.start}, {self.stop}) are not in {self.grid}")

    @classmethod
    def of(cls, tokens: Tensor, grid: Grid, *, start: int) -> "TokenSlice":
        """tokens: (M, D), those of the window from `start` on."""
        digest = hashlib.blake2b(_bytes(tokens), digest_size=16).hexdigest()
        return cls(digest, grid.t, grid.rows, grid.columns, start, start + len(tokens))

    @classmethod
    def parse(cls, name: str) -> "TokenSlice":
        """Of a `name`; ValueError for anything that is not ours."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"only slices of vidray's are taken, got {name[:80]!r}")
        digest, *numbers = found.groups()
        return cls(digest, *map(int, numbers))

    @property
    def name(self) -> str:
        grid = f"{self.t}x{self.rows}x{self.columns}"
        return f"vidray:{self.digest}:{grid}:{self.start}-{self.stop}"

    @property
    def grid(self) -> Grid:
        return Grid(self.t, self.rows, self.columns, MERGED)

    @property
    def num_tokens(self) -> int:
        return self.stop - self.start


def prompt_positions(
    num_tokens: int, slices: Sequence[tuple[int, TokenSlice]]
) -> tuple[Tensor, int]:
    """Where all tokens of a prompt stand, and where the next one will.

    slices: (index of the first token in the prompt, slice), in order; the other tokens are text.
    A window's slices follow each other; the last one may end before its window does.
    returns: (3, S) int64, and the position after them by the paper's rule
    """
    parts: list[Tensor] = []
    index, position, window = 0, 0, None
    for offset, each in slices:
        if offset < index:
            raise ValueError(f"slice {each.name} begins within the one before")
        parts.append(text_positions(position, offset - index))
        position += offset - index
        begun = (position, each.grid, 0) if each.start == 0 else window
        if begun is None or begun[1:] != (each.grid, each.start) or (offset > index and each.start):
            raise ValueError(f"slice {each.name} does not follow the one before")
        begin = begun[0]
        parts.append(video_positions(begin, each.grid)[:, each.start : each.stop])
        index, window = offset + each.num_tokens, (begin, each.grid, each.stop)
        position = position_after_video(begin, each.grid)
        if each.stop == each.grid.num_tokens:
            window = None
    if index > num_tokens:
        raise ValueError(f"slices reach token {index} of a prompt of {num_tokens}")
    parts.append(text_positions(position, num_tokens - index))
    return torch.cat(parts, dim=1), position + num_tokens - index


def _bytes(tokens: Tensor) -> memoryview:
    array = tokens.contiguous().view(torch.uint8).numpy()  # arrays have no bfloat16
    return array.data
