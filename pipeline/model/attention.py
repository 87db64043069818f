"""Causal attention of new tokens over a cache, piece by piece.

Softmax over a long row can be taken in pieces and joined exactly, if each piece also returns the
log of its sum of exponentials (as in FlashAttention, arXiv 2205.14135). So a prefix shared by many
questions is read once for all of them and not copied, and a chunk of prefill attends to its past
without a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.engine.cache import KVCache, Prefix


@dataclass(frozen=True, slots=True)
class Segment:
    """`num_tokens` consecutive rows of a flat batch that continue one cache.

    Without a cache the rows are a sequence of their own, and gradients flow (training).
    num_outputs: of how many of its last tokens the hidden states are wanted; None is all. A chunk
    of video needs none and a prompt one: the last layer computes no others.
    """

    cache: KVCache | None
    num_tokens: int
    num_outputs: int | None = None

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise ValueError(f"a segment needs a token, got {self.num_tokens = }")
        if not 0 <= self.num_wanted <= self.num_tokens:
            raise ValueError(f"{self.num_outputs = } of {self.num_tokens = }")

    @property
    def num_wanted(self) -> int:
        return self.num_tokens if self.num_outputs is None else self.num_outputs

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All its own keys and values, the given ones last: (K, held + num_tokens, head_dim)."""
        return (keys, values) if self.cache is None else self.cache.append(layer, keys, values)


class _Partial(NamedTuple):
    """Attention over some of the keys: output (S, H, head_dim), log of the softmax sum (S, H)."""

    output: Tensor
    log_sum: Tensor

    def joined_output(self, other: "_Partial") -> Tensor:
        """The output over the keys of both."""
        weight = torch.sigmoid(self.log_sum - other.log_sum).unsqueeze(-1).to(self.output.dtype)
        return torch.lerp(other.output, self.output, weight)

    def join(self, other: "_Partial") -> "_Partial":
        """Attention over the keys of both."""
        return _Partial(self.joined_output(other), torch.logaddexp(self.log_sum, other.log_sum))

    @classmethod
    def cat(cls, partials: "Sequence[_Partial]") -> "_Partial":
        """The rows of all, in order."""
        if len(partials) == 1:
            return partials[0]
        return cls(*map(torch.cat, zip(*partials, strict=True)))


def attend(
    query: Tensor, keys: Tensor, values: Tensor, *, segments: Sequence[Segment], layer: int
) -> Tensor:
    """Attention of the wanted rows over their segments' caches and, causally, over the segments.

    query: (R, H, head_dim), either every row of the segments or the last `num_wanted` of each
    keys, values: (S, K, head_dim) of every row, appended to the segments' caches
    returns: (R, H, head_dim)
    """
    keys, values = keys.transpose(0, 1), values.transpose(0, 1)
    is_whole = query.shape[0] == keys.shape[1]
    outputs, start, end = [], 0, 0  # of query rows, of key rows
    for prefix, group in groupby(segments, key=_prefix_of):
        own, first = [], start
        for segment in group:
            new = slice(end, end + segment.num_tokens)
            rows = slice(start, start + (segment.num_tokens if is_whole else segment.num_wanted))
            start, end = rows.stop, new.stop
            own_keys, own_values = segment.append(layer, keys[:, new], values[:, new])
            if rows.start < rows.stop:
                own.append(_attend_last(query[rows], own_keys, own_values))
        if own:
            outputs.append(_join_prefix(_Partial.cat(own), query[first:start], prefix, layer))
    return _cat(outputs) if outputs else query


def _prefix_of(segment: Segment) -> Prefix | None:
    return None if segment.cache is None else segment.cache.prefix


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors))


def _join_prefix(own: _Partial, query: Tensor, prefix: Prefix | None, layer: int) -> Tensor:
    while prefix is not None:
        shared = _attend_all(query, *prefix.layers[layer])
        if prefix.before is None:
            return own.joined_output(shared)
        own, prefix = own.join(shared), prefix.before
    return own.output


def _attend_last(query: Tensor, keys: Tensor, values: Tensor) -> _Partial:
    """The last rows of a sequence over all before them and, causally, over themselves.

    query: (S, H, head_dim); keys, values: (K, L, head_dim), L >= S
    """
    num_rows = query.shape[0]
    if num_rows == 1:
        return _attend_all(query, keys, values)
    past = keys.shape[1] - num_rows
    heads = query.transpose(0, 1).unsqueeze(0)
    output, log_sum = _attention(heads, keys[:, past:], values[:, past:], is_causal=True)
    new = _Partial(output[0].transpose(0, 1), log_sum[0].transpose(0, 1))
    return new.join(_attend_all(query, keys[:, :past], values[:, :past])) if past else new


def _attend_all(query: Tensor, keys: Tensor, values: Tensor) -> _Partial:
    """Every row over every key: the query heads of one key-value head become rows of one head.

    So keys and values are read once for the group. query: (S, H, head_dim); keys, values:
    (K, L, head_dim)
    """
    num_rows, num_heads, head_dim = query.shape
    num_groups = keys.shape[0]
    if num_rows == 1:  # every word of every answer: heads lie as they are wanted
        heads = query.view(1, num_groups, -1, head_dim)
        output, log_sum = _attention(heads, keys, values, is_causal=False)
        return _Partial(output.reshape(query.shape), log_sum.reshape(1, num_heads))
    rows = query.view(num_rows, num_groups, -1, head_dim).transpose(0, 1)
    heads = rows.reshape(1, num_groups, -1, head_dim)  # (1, K, S * H / K, head_dim)
    output, log_sum = _attention(heads, keys, values, is_causal=False)
    output = output.view(num_groups, num_rows, -1, head_dim).transpose(0, 1)
    log_sum = log_sum.view(num_groups, num_rows, -1).transpose(0, 1)
    return _Partial(output.reshape(query.shape), log_sum.reshape(num_rows, num_heads))


def _attention(
    heads: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """Output and log sums of query heads (1, H, S, head_dim) over (K, L, head_dim), H = groups * K.

    By the kernels that scaled_dot_product_attention chooses from, called by their names because
    only so do they return the log sums: scores are float32 in all of them, whatever the inputs are.
    In bfloat16 they would be off by a third where keys and queries share a large bias.
    returns: (1, H, S, head_dim), (1, H, S) float32
    """
    keys, values = keys.unsqueeze(0), values.unsqueeze(0)
    if heads.device.type == "cpu":  # takes H = groups * K heads and has a gradient, as CUDA's
        output, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default(
            heads, keys, values, is_causal=is_causal
        )
    elif heads.dtype != torch.float32:
        output, log_sum, *_ = torch.ops.aten._scaled_dot_product_flash_attention.default(
            heads, keys, values, is_causal=is_causal
        )
    else:  # FlashAttention has no float32: to compare with, not to be fast
        groups = heads.shape[1] // keys.shape[1]
        output, log_sum, *_ = torch.ops.aten._scaled_dot_product_efficient_attention.default(
            heads,
            keys.repeat_interleave(groups, 1),
            values.repeat_interleave(groups, 1),
            None,
            True,
            is_causal=is_causal,
        )
        log_sum = log_sum[..., : heads.shape[2]]  # its rows are filled up to a multiple of 32
    return output, log_sum
