"""One stream's media on their way into vLLM: chunks in, slices of whole blocks out.

vLLM shares whole blocks of keys and values, so what is sent ends where a block does. What is left
of the last one waits here, is not prefilled, and goes along with every question, for each of which
vLLM would compute it anyway. And the token that every update's step samples, to be replaced by the
next update, never completes a block that others might find.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from actors.vllm.slices import MERGED, TokenSlice
from pipeline.engine.layout import PromptWindow, lay_out
from pipeline.errors import StreamError
from pipeline.types import Grid, TokenChunk

SLICE_TOKENS = 2048  # at most in one update: vLLM keeps room for the largest


@dataclass(frozen=True, slots=True)
class Placed:
    """A slice, the index of its first token in the prompt, and its tokens (M, D) unless sent."""

    offset: int
    slice: TokenSlice
    tokens: Tensor | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Some tokens of a prompt from `start` on: the ids of all, and the slices that are video."""

    start: int
    ids: tuple[int, ...]
    slices: tuple[Placed, ...]


@dataclass(frozen=True, slots=True)
class _Held:
    """Video tokens that came and were not sent: where in the prompt, and from where in a grid."""

    offset: int
    grid: Grid
    start: int
    tokens: Tensor

    def first(self, num_tokens: int) -> Placed:
        tokens = self.tokens[:num_tokens]
        return Placed(self.offset, TokenSlice.of(tokens, self.grid, start=self.start), tokens)

    def after(self, num_tokens: int) -> "_Held":
        left = self.tokens[num_tokens:]
        if num_tokens:  # or the whole chunk would stay for a few of its tokens
            left = left.clone()
        return _Held(self.offset + num_tokens, self.grid, self.start + num_tokens, left)


class Feed:
    """The media of one prompt: takes their chunks in order, gives updates of whole blocks."""

    def __init__(
        self, media: Sequence[PromptWindow], *, video_pad_id: int, hidden_size: int, block: int
    ) -> None:
        layout = lay_out(media)
        self.next_position = layout.next_position
        self.num_tokens = sum(medium.num_tokens for medium in media)
        self._entries = layout.entries
        self._places = [
            (_merged(medium.window.grid), span.start * medium.window.grid.tokens_per_step)
            for medium in media
            for span in medium.window.chunks
        ]
        self._video_pad_id = video_pad_id
        self._hidden_size = hidden_size
        self._block = block
        self._num_taken = 0
        self._ids: list[int] = []  # of all that came
        self._num_sent = 0
        self._sent: list[Placed] = []
        self._held: list[_Held] = []

    @property
    def num_missing(self) -> int:
        """Chunks that have not come."""
        return len(self._entries) - self._num_taken

    def take(self, chunk: TokenChunk) -> None:
        """Take the next chunk; StreamError for any other one, whichever it is."""
        if not self.num_missing:
            raise StreamError(f"chunk {chunk.index} of window {chunk.window_index}: had them all")
        entry = self._entries[self._num_taken]
        entry.require(chunk, hidden_size=self._hidden_size)
        grid, start = self._places[self._num_taken]
        self._num_taken += 1
        self._ids += entry.ids_before
        self._held.append(_Held(len(self._ids), grid, start, chunk.tokens))
        self._ids += [self._video_pad_id] * len(chunk.tokens)

    def next_update(self) -> Prompt | None:
        """What can be sent now, if anything. Takes time: what is in a slice is hashed."""
        start = self._num_sent
        most = max(SLICE_TOKENS // self._block, 1) * self._block
        stop = min(len(self._ids) // self._block * self._block, start + most)
        if stop <= start:
            return None
        slices: list[Placed] = []
        held: list[_Held] = []
        for each in self._held:
            num_now = min(max(stop - each.offset, 0), len(each.tokens))
            if num_now:
                slices.append(each.first(num_now))
            if num_now < len(each.tokens):
                held.append(each.after(num_now))
        self._num_sent, self._held = stop, held
        self._sent += [replace(each, tokens=None) for each in slices]
        return Prompt(start, tuple(self._ids[start:stop]), tuple(slices))

    def whole(self, ids: Sequence[int]) -> Prompt:
        """All of the media, then `ids`: slices that were sent go by their names alone."""
        held = [each.first(len(each.tokens)) for each in self._held]
        return Prompt(0, (*self._ids, *ids), (*self._sent, *held))


def _merged(grid: Grid) -> Grid:
    return Grid(grid.t, grid.rows, grid.columns, MERGED)
