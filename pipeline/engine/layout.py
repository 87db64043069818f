"""Where every token of a prompt's media stands, chunk by chunk, known before the first frame."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.errors import StreamError
from pipeline.families.qwen2_vl.positions import (
    position_after_video,
    text_positions,
    video_positions,
)
from pipeline.types import TokenChunk, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptWindow:
    """A window of a video in a prompt, and the tokens between it and what stands before it."""

    ids_before: tuple[int, ...]
    plan_hash: str
    window: Window

    @property
    def num_tokens(self) -> int:
        return len(self.ids_before) + self.window.grid.num_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One chunk's place in a prompt.

    key: (plan hash, window index, chunk index). ids_before: the tokens just before the chunk, fed
    along with it. positions: (3, S) of those tokens and the chunk's.
    """

    key: tuple[str, int, int]
    ids_before: tuple[int, ...]
    positions: Tensor = field(repr=False)

    @property
    def num_tokens(self) -> int:
        """Tokens fed with this entry, S."""
        return self.positions.shape[1]

    @property
    def num_video_tokens(self) -> int:
        return self.num_tokens - len(self.ids_before)

    def require(self, chunk: TokenChunk, *, hidden_size: int) -> None:
        """StreamError unless this is the chunk that belongs here, of the right shape."""
        key = (chunk.plan_hash, chunk.window_index, chunk.index)
        if key != self.key:
            raise StreamError(f"expected (plan, window, chunk) {self.key}, got {key}")
        expected = (self.num_video_tokens, hidden_size)
        if chunk.tokens.shape != expected:
            raise StreamError(f"chunk needs tokens {expected}, got {tuple(chunk.tokens.shape)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Every chunk's entry in order, and the position of whatever follows the media."""

    entries: tuple[Entry, ...]
    next_position: int


def lay_out(media: Sequence[PromptWindow]) -> Layout:
    """Give every chunk its place by the paper's rule: what follows stands at max + 1."""
    entries: list[Entry] = []
    position = 0
    for medium in media:
        window, start = medium.window, position + len(medium.ids_before)
        for span in window.chunks:
            ids = medium.ids_before if span is window.chunks[0] else ()
            places = (
                text_positions(start - len(ids), len(ids)),
                video_positions(start, window.grid, span=span),
            )
            entries.append(
                Entry(
                    key=(medium.plan_hash, window.index, span.index),
                    ids_before=ids,
                    positions=torch.cat(places, dim=1),
                )
            )
        position = position_after_video(start, window.grid)
    return Layout(entries=tuple(entries), next_position=position)
