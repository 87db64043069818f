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

    embeddings: (S, D); positions: (3, S). With a sampler the step chooses the token that follows.
    """

    cache: KVCache
    embeddings: Tensor
    positions: Tensor
    sampler: Sampler | None = None


@torch.inference_mode()
def embed(model: LanguageModel, ids: Sequence[int]) -> Tensor:
    """Vectors of token ids, (S, D), where the model is."""
    return model.embed(torch.tensor(ids, dtype=torch.int64, device=model.norm.weight.device))


def num_products(model: LanguageModel, additions: Sequence[Addition]) -> int:
    """Numbers this rank multiplies in a step, attention included, scores of the vocabulary not."""
    pair = 2 * model.config.num_layers * model.num_heads * model.config.head_dim  # query and key
    return sum(
        tokens * (model.num_weights + (addition.cache.length + tokens // 2) * pair)
        for addition in additions
        for tokens in (len(addition.embeddings),)
    )


@torch.inference_mode()
def step(model: LanguageModel, additions: Sequence[Addition]) -> list[int | BadInput]:
    """Run one flat batch; returns, for each addition with a sampler, the next token or a failure.

    Additions of any streams and any lengths go together. Those that share a prefix read it once
    if they stand next to each other.
    """
    asked = [addition.sampler for addition in additions if addition.sampler]
    segments = [
        Segment(addition.cache, len(addition.embeddings), 1 if addition.sampler else 0)
        for addition in additions
    ]
    hidden = model(
        torch.cat([addition.embeddings for addition in additions]),
        torch.cat([addition.positions for addition in additions], dim=1),
        segments,
    )
    return next_tokens(model.logits(hidden), asked) if asked else []
