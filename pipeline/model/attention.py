"""Causal attention of new tokens over a cache, piece by piece.

Softmax over a long row can be taken in pieces and joined exactly, if each piece also returns the
log of its sum of exponentials (as in FlashAttention, arXiv 2205.14135). So a prefix shared by many
questions is read once for all of them and never copied, and a chunk of prefill attends to its past
without a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.model.cache import KVCache, Prefix


@dataclass(frozen=True, slots=True)
class Segment:
    """`num_tokens` consecutive rows of a flat batch that continue one cache.

    Without a cache the rows are a sequence of their own, and gradients flow (training).
    """

    cache: KVCache | None
    num_tokens: int

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise ValueError(f"a segment needs a token, got {self.num_tokens = }")


@dataclass(frozen=True, slots=True)
class _Partial:
    """Attention over some of the keys: output (S, H, head_dim), log of the softmax sum (S, H)."""

    output: Tensor
    log_sum: Tensor

    def join(self, other: "_Partial") -> "_Partial":
        """Attention over the keys of both."""
        weight = torch.sigmoid(self.log_sum - other.log_sum).unsqueeze(-1).to(self.output.dtype)
        output = torch.lerp(other.output, self.output, weight)
        return _Partial(output, torch.logaddexp(self.log_sum, other.log_sum))


def attend(
    query: Tensor, keys: Tensor, values: Tensor, *, segments: Sequence[Segment], layer: int
) -> Tensor:
    """Attention of every segment's rows over its cache and, causally, over themselves.

    query: (S, H, head_dim); keys, values: (S, K, head_dim), appended to the segments' caches
    returns: (S, H, head_dim)
    """
    outputs, start = [], 0
    for prefix, group in groupby(segments, key=_prefix_of):
        members = tuple(group)
        rows = slice(start, start + sum(segment.num_tokens for segment in members))
        own = _attend_own(query[rows], keys[rows], values[rows], members, layer)
        while prefix is not None:
            own = own.join(_attend_all(query[rows], *prefix.layers[layer]))
            prefix = prefix.before
        outputs.append(own.output)
        start = rows.stop
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _prefix_of(segment: Segment) -> Prefix | None:
    return segment.cache.prefix if segment.cache else None


def _attend_own(
    query: Tensor, keys: Tensor, values: Tensor, segments: Sequence[Segment], layer: int
) -> _Partial:
    """Each segment over its own memory and itself; segments in order."""
    sizes = [segment.num_tokens for segment in segments]
    pieces = zip(segments, *(torch.split(x, sizes) for x in (query, keys, values)), strict=True)
    partials = [_attend_segment(q, k, v, segment.cache, layer) for segment, q, k, v in pieces]
    if len(partials) == 1:
        return partials[0]
    outputs = torch.cat([partial.output for partial in partials])
    return _Partial(outputs, torch.cat([partial.log_sum for partial in partials]))


def _attend_segment(
    query: Tensor, keys: Tensor, values: Tensor, cache: KVCache | None, layer: int
) -> _Partial:
    keys, values = keys.transpose(0, 1), values.transpose(0, 1)  # (K, S, head_dim)
    if cache is None:
        return _attend(query, keys, values, is_causal=True)
    held = cache.own_length
    own_keys, own_values = cache.append(layer, keys, values)
    if query.shape[0] == 1 or held == 0:
        return _attend(query, own_keys, own_values, is_causal=held == 0)
    past = _attend_all(query, own_keys[:, :held], own_values[:, :held])
    return past.join(_attend(query, own_keys[:, held:], own_values[:, held:], is_causal=True))


def _attend_all(query: Tensor, keys: Tensor, values: Tensor) -> _Partial:
    """Every row over every key.

    query: (S, H, head_dim); keys, values: (K, L, head_dim)
    """
    return _attend(query, keys, values, is_causal=False)


def _attend(query: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool) -> _Partial:
    heads = query.transpose(0, 1).unsqueeze(0)  # (1, H, S, head_dim)
    if query.device.type == "cpu":
        # What scaled_dot_product_attention runs on a CPU; called by name because only so does it
        # return the log sums. It takes H = groups * K heads and has a gradient.
        output, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            heads, keys.unsqueeze(0), values.unsqueeze(0), is_causal=is_causal
        )
    else:
        output, log_sum = _plain_attention(heads, keys, values, is_causal=is_causal)
    return _Partial(output[0].transpose(0, 1), log_sum[0].transpose(0, 1))


def _plain_attention(
    heads: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """The same by its definition, for devices without a kernel that returns the log sums."""
    groups = heads.shape[1] // keys.shape[0]
    keys, values = keys.repeat_interleave(groups, 0), values.repeat_interleave(groups, 0)
    scores = (heads @ keys.transpose(1, 2)).float() * heads.shape[-1] ** -0.5  # (1, H, S, L)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=heads.device).triu(1)
        scores = scores.masked_fill(mask, float("-inf"))
    return F.softmax(scores, dim=-1).to(heads.dtype) @ values, scores.logsumexp(-1)
