"""One step of the language model: a flat batch of what any streams add to their caches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engine.cache import KVCache
from pipeline.engine.sampler import Sampler, next_tokens
from pipeline.errors import BadInput
from pipeline.model.language import LanguageModel, Segment


@dataclass(frozen=True, slots=True)
class Addition:
    """What one step adds to one cache: a chunk of video, a question, or the token just chosen.

    ids: of tokens; tokens: (M, D), vectors that follow them, if any; positions: (3, S) of both, on
    the CPU. With a sampler the step chooses the token that follows.
    """

    cache: KVCache
    ids: Sequence[int]
    positions: Tensor
    tokens: Tensor | None = None
    sampler: Sampler | None = None

    @property
    def num_tokens(self) -> int:
        return self.positions.shape[1]


def num_products(model: LanguageModel, additions: Sequence[Addition]) -> int:
    """Numbers this rank multiplies in a step, attention included, scores of the vocabulary not."""
    pair = 2 * model.config.num_layers * model.num_heads * model.config.head_dim  # query and key
    return sum(
        tokens * (model.num_weights + (addition.cache.length + tokens // 2) * pair)
        for addition in additions
        for tokens in (addition.num_tokens,)
    )


@torch.inference_mode()
def step(model: LanguageModel, additions: Sequence[Addition]) -> list[int | BadInput]:
    """Run one flat batch; returns, for each addition with a sampler, the next token or a failure.

    Additions of any streams and any lengths go together. Those that share a prefix read it once
    if they stand next to each other.
    """
    logits = forward(model, additions)
    asked = [addition.sampler for addition in additions if addition.sampler]
    if not asked and logits.is_cuda:  # a chunk counts as taken when it is, not when it is launched
        torch.cuda.current_stream().synchronize()
    return next_tokens(logits, asked) if asked else []


def forward(model: LanguageModel, additions: Sequence[Addition]) -> Tensor:
    """All of a step that a GPU is not waited for: scores (R, V), a row for each sampler."""
    segments = [
        Segment(addition.cache, addition.num_tokens, 1 if addition.sampler else 0)
        for addition in additions
    ]
    positions = torch.cat([addition.positions for addition in additions], dim=1)
    embeddings = _embeddings(model, additions)
    hidden = model(embeddings, positions.to(embeddings.device), segments)
    return model.logits(hidden) if len(hidden) else hidden


def _embeddings(model: LanguageModel, additions: Sequence[Addition]) -> Tensor:
    """(S, D): all ids of the step are looked up in one call, and added up over the ranks in one."""
    weight = model.norm.weight
    ids = [token for addition in additions for token in addition.ids]
    vectors = (
        model.embed(torch.tensor(ids, dtype=torch.int64, device=weight.device))
        if ids
        else weight.new_empty(0, model.config.hidden_size)
    )
    if len(ids) == sum(addition.num_tokens for addition in additions):
        return vectors
    parts, start = [], 0
    for addition in additions:
        stop = start + len(addition.ids)
        parts.append(vectors[start:stop])
        if addition.tokens is not None:
            parts.append(addition.tokens.to(vectors))
        start = stop
    return torch.cat(parts)
