"""Many questions on each of many clips in one pass through the model's own layers.

A served question stands alone after its video. So do these: every segment starts at the position
right after the video and sees the video and itself, never another segment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from jobs.lab.train.lessons import LessonSegment
from pipeline.families.qwen2_vl.positions import (
    multimodal_rotary,
    rotate,
    text_positions,
    video_positions,
)
from pipeline.model.language import DecoderLayer, LanguageModel
from pipeline.types import Grid

PAD_ID = 0


@dataclass(slots=True)
class Packing:
    """Where the segments of B clips lie in padded rows of text.

    ids: (B, L); position: (B, L) within the segment; mask: (B, 1, L, L) additive, its own past only
    """

    ids: Tensor
    position: Tensor
    mask: Tensor


def pack(clips: Sequence[Sequence[LessonSegment]]) -> Packing:
    """Lay each clip's segments one after another; padding sees only itself."""
    lengths = [sum(len(segment.ids) for segment in clip) for clip in clips]
    shape = (len(clips), max(lengths))
    ids = torch.full(shape, PAD_ID)
    position = torch.zeros(shape, dtype=torch.long)
    owner = torch.arange(shape[1]).repeat(len(clips), 1) + len(max(clips, key=len))
    for row, clip in enumerate(clips):
        start = 0
        for index, segment in enumerate(clip):
            stop = start + len(segment.ids)
            ids[row, start:stop] = torch.tensor(segment.ids)
            position[row, start:stop] = torch.arange(stop - start)
            owner[row, start:stop] = index
            start = stop
    sees = (owner[:, :, None] == owner[:, None, :]).tril()
    mask = torch.zeros(sees.shape).masked_fill_(~sees, float("-inf"))
    return Packing(ids, position, mask[:, None])


@dataclass(slots=True)
class Passed:
    """What a pass leaves: states after every layer, the last one normalised, each (B, S, D).

    S = prefix + M + L: the text starts at text_start.
    """

    language: LanguageModel
    packing: Packing
    states: list[Tensor]
    rotary: tuple[Tensor, Tensor]
    text_start: int

    def video(self, layer: int, grid: Grid) -> Tensor:
        """States of the clips' tokens after a layer, at unit size: (B, M, D)."""
        return _normal(self.states[layer][:, self.text_start - grid.num_tokens : self.text_start])

    def text(self, layer: int, row: Tensor, place: Tensor) -> Tensor:
        """States of places in the packing after a layer, at unit size: (N, D)."""
        return _normal(self.states[layer][row, self.text_start + place])

    def first_words(self, layer: int) -> Tensor:
        """States of every question's first token after a layer, at unit size: (N, D)."""
        is_first = self.packing.position == 0
        return _normal(self.states[layer][:, self.text_start :][is_first])

    def attention(self, layer: int, row: Tensor, place: Tensor, *, group: int = 0) -> Tensor:
        """Log-probabilities of where places in the text look, by the heads of one key-value head.

        row, place: (N), of the packing. group: which key-value head. returns: (N, heads, S)
        """
        decoder, config = _layers_of(self.language)[layer], self.language.config
        attention, x = decoder.self_attn, decoder.input_layernorm(self.states[layer - 1])
        size, num_heads = config.head_dim, config.num_heads
        num_shared = num_heads // config.num_kv_heads
        query_size, key = num_shared * size, num_heads * size + group * size
        rows = [*range(group * query_size, (group + 1) * query_size), *range(key, key + size)]
        weight, bias = attention.qkv.weight, cast(Tensor, attention.qkv.bias)  # it always has one
        heads = F.linear(x, weight[rows], bias[rows])
        heads = heads.flatten(0, 1).unflatten(-1, (-1, size))
        turned = rotate(heads, *self.rotary).unflatten(0, x.shape[:2])
        query = turned[row, self.text_start + place, :num_shared]
        scores = torch.einsum("nhd,nsd->nhs", query, turned[row, :, -1]) / size**0.5
        sees = F.pad(self.packing.mask[row, 0, place], (self.text_start, 0))
        return F.log_softmax(scores + sees[:, None], dim=-1)


def packed_hidden(
    language: LanguageModel,
    video: Tensor,
    grid: Grid,
    *,
    prefix: Sequence[int],
    packing: Packing,
    positions: Callable[[int, Grid], Tensor] = video_positions,
) -> Passed:
    """Pass the clips' tokens, video: (B, M, D), and the packed text after them.

    positions: of a video's tokens, (3, M), from where it starts; others than the served ones are
    for comparison only
    """
    batch, start = video.shape[0], len(prefix)
    before = language.embed(torch.tensor(prefix)).expand(batch, -1, -1)
    x = torch.cat((before, video, language.embed(packing.ids)), dim=1)
    past = torch.cat((text_positions(0, start), positions(start, grid)), dim=1)
    text = packing.position + past.max() + 1
    places = torch.cat(
        (past[:, None].expand(-1, batch, -1), text.expand(3, -1, -1)), dim=2
    )  # (3, B, S)
    config = language.config
    rotary = multimodal_rotary(
        places.flatten(1),
        head_dim=config.head_dim,
        theta=config.rope_theta,
        sections=config.mrope_section,
    )
    num_past = past.shape[1]
    mask = F.pad(packing.mask, (num_past, 0))
    states = []
    for layer in _layers_of(language):
        x = _layer(layer, x, rotary, mask, num_past)
        states.append(x)
    states[-1] = language.norm(x)
    return Passed(language, packing, states, rotary, text_start=num_past)


def _layers_of(language: LanguageModel) -> list[DecoderLayer]:
    return [cast(DecoderLayer, layer) for layer in language.layers]


def _layer(
    layer: DecoderLayer, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, num_past: int
) -> Tensor:
    """The layer's own norms and matmuls around attention with a mask."""
    attention = layer.self_attn
    batch, length, _ = x.shape
    num_heads, num_kv = attention.num_heads, attention.num_kv_heads
    flat = attention.qkv(layer.input_layernorm(x)).flatten(0, 1)
    heads = flat.unflatten(-1, (-1, attention.head_dim))
    turned = rotate(heads[:, : num_heads + num_kv], *rotary)
    parts = (turned[:, :num_heads], turned[:, num_heads:], heads[:, num_heads + num_kv :])
    query, keys, values = (part.unflatten(0, (batch, length)).transpose(1, 2) for part in parts)
    keys, values = (part.repeat_interleave(num_heads // num_kv, dim=1) for part in (keys, values))
    attend = F.scaled_dot_product_attention
    past = attend(
        query[:, :, :num_past], keys[:, :, :num_past], values[:, :, :num_past], is_causal=True
    )
    text = attend(query[:, :, num_past:], keys, values, attn_mask=mask)
    mixed = torch.cat((past, text), dim=2).transpose(1, 2).flatten(2)
    x = x + attention.o_proj(mixed)
    fed: Tensor = layer.mlp(layer.post_attention_layernorm(x))
    return x + fed


def _normal(states: Tensor) -> Tensor:
    """States of a layer in the middle at unit size: the residual stream grows while it learns."""
    return F.rms_norm(states, states.shape[-1:])
