"""Attention against its definition in float32, where keys and queries share a large bias.

Real models have such channels. Scores that are rounded to bfloat16 lose a third of the answer
there; a kernel that keeps them in float32 loses what rounding its inputs does.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.engine.cache import KVCache
from pipeline.model.attention import Segment, attend

HEAD_DIM = 128
BIASES = (0, 8, 32)
BIASED_CHANNELS = 8


def exact(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The last rows of a sequence, causally, in float32.

    query: (R, H, head_dim) of its last rows; keys, values: (L, K, head_dim)
    returns: (R, H, head_dim)
    """
    num_rows, num_keys = query.shape[0], keys.shape[0]
    groups = query.shape[1] // keys.shape[1]
    query, keys, values = (each.float().transpose(0, 1) for each in (query, keys, values))
    keys, values = keys.repeat_interleave(groups, 0), values.repeat_interleave(groups, 0)
    scores = query @ keys.transpose(1, 2) * query.shape[-1] ** -0.5  # (H, R, L)
    ones = torch.ones(num_rows, num_keys, dtype=torch.bool, device=query.device)
    scores = scores.masked_fill(ones.triu(num_keys - num_rows + 1), float("-inf"))
    output: Tensor = scores.softmax(-1) @ values
    return output.transpose(0, 1)


def inputs(
    length: int, *, bias: float, heads: tuple[int, int], dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Query (L, H, head_dim), keys and values (L, K, head_dim), seeded."""
    generator = torch.Generator(device).manual_seed(length)

    def random(num_heads: int) -> Tensor:
        shape = (length, num_heads, HEAD_DIM)
        return torch.randn(shape, generator=generator, device=device)

    shift = torch.zeros(HEAD_DIM, device=device)
    shift[:BIASED_CHANNELS] = bias
    query, keys, values = random(heads[0]) + shift, random(heads[1]) + shift, random(heads[1])
    return query.to(dtype), keys.to(dtype), values.to(dtype)


def attended(
    query: Tensor, keys: Tensor, values: Tensor, *, parts: tuple[int, ...], forked_after: int
) -> Tensor:
    """What the engine computes, in parts one after another; those from `forked_after` on a fork.

    query: (R, H, head_dim) of the last rows; of those before, keys and values are held, no more
    keys, values: (L, K, head_dim)
    returns: (R, H, head_dim)
    """
    length, num_kv_heads, _ = keys.shape
    first = length - query.shape[0]
    cache = KVCache(
        num_layers=1,
        num_kv_heads=num_kv_heads,
        head_dim=HEAD_DIM,
        capacity=length,
        dtype=keys.dtype,
        device=keys.device,
    )
    outputs, start = [], 0
    for number, size in enumerate(parts):
        if number == forked_after:
            cache = cache.fork(capacity=length - start)
        rows = slice(start, start + size)
        wanted = query[max(rows.start - first, 0) : max(rows.stop - first, 0)]
        segment = Segment(cache, size, len(wanted))
        outputs.append(attend(wanted, keys[rows], values[rows], segments=[segment], layer=0))
        cache.advance(size)
        start += size
    return torch.cat(outputs)


def errors(
    device: str, dtype: torch.dtype, *, lengths: tuple[int, ...], heads: tuple[int, int]
) -> Iterator[tuple[str, float]]:
    """By case: the error of the last rows, relative to what is right."""
    for length in lengths:
        for bias in BIASES:
            given = inputs(length, bias=bias, heads=heads, dtype=dtype, device=device)
            few = min(length, 64)
            expected = exact(given[0][-few:], *given[1:])
            third = max(length // 3, 1)
            joined = (third, third, length - 2 * third) if length > 2 else (length,)
            for what, parts, fork in (
                ("whole", (length,), length),
                ("in parts", joined, length),
                ("over a shared prefix", joined, len(joined) - 1),
                (
                    "word by word",
                    (*([length - 8] if length > 8 else []), *[1] * min(length, 8)),
                    99,
                ),
            ):
                found = attended(*given, parts=parts, forked_after=fork)[-few:].float()
                error = float((found - expected).norm() / expected.norm())
                yield f"{length} keys, bias {bias}, {what}", error
