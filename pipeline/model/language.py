"""The language model of Qwen2-VL: Qwen2 with M-RoPE, over a flat batch of segments.

One code path serves chunked prefill, decoding, continuous batches of both, and training: linear
layers run over all rows at once, attention runs per segment over its own cache.
"""

import logging
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.config import ModelConfig
from pipeline.engine.cache import KVCache
from pipeline.families.qwen2_vl.positions import multimodal_rotary, rotate
from pipeline.model.attention import Segment, attend
from pipeline.model.parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    Rows,
    TensorParallel,
    VocabParallelEmbedding,
)

if TYPE_CHECKING:
    from pipeline.model.word_pass import WordPass

log = logging.getLogger(__name__)

__all__ = ["LanguageModel", "Segment"]


class Norm(nn.Module):
    """RMSNorm, in float32 inside. x: (..., D)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention, added to residual: each key-value head serves H / K query heads."""

    def __init__(self, config: ModelConfig, parallel: TensorParallel) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        heads = parallel.share(config.num_heads, what="attention heads")
        kv_heads = parallel.share_or_copy(config.num_kv_heads, what="key-value heads")
        self.num_heads, self.num_kv_heads = len(heads), len(kv_heads)
        self.qkv = ColumnParallelLinear(
            config.hidden_size,
            [
                self._rows("q_proj", config.num_heads, heads),
                self._rows("k_proj", config.num_kv_heads, kv_heads),
                self._rows("v_proj", config.num_kv_heads, kv_heads),
            ],
            bias=True,
        )
        width = config.num_heads * config.head_dim
        self.o_proj = RowParallelLinear(
            width, config.hidden_size, name="o_proj", bias=False, parallel=parallel
        )

    def _rows(self, name: str, num_heads: int, kept: range) -> Rows:
        size = self.head_dim
        return Rows(name, num_heads * size, range(kept.start * size, kept.stop * size))

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        segments: Sequence[Segment],
        layer: int,
        wanted: Tensor | None,
        residual: Tensor,
    ) -> Tensor:
        num_heads, num_turned = self.num_heads, self.num_heads + self.num_kv_heads
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim))  # (S, H + 2K, head_dim)
        turned = rotate(heads[:, :num_turned], *rotary)
        query, keys = turned[:, :num_heads], turned[:, num_heads:]
        values = heads[:, num_turned:]
        if wanted is not None:
            query = query[wanted]
        mixed = attend(query, keys, values, segments=segments, layer=layer)
        projected: Tensor = self.o_proj(mixed.flatten(1), residual)
        return projected


class GatedMLP(nn.Module):
    """SwiGLU: residual + down(silu(gate(x)) * up(x)), gate and up in one matmul."""

    def __init__(self, config: ModelConfig, parallel: TensorParallel) -> None:
        super().__init__()
        width = config.intermediate_size
        kept = parallel.share(width, what="MLP features")
        self.gate_up = ColumnParallelLinear(
            config.hidden_size,
            [Rows("gate_proj", width, kept), Rows("up_proj", width, kept)],
            bias=False,
        )
        self.down_proj = RowParallelLinear(
            width, config.hidden_size, name="down_proj", bias=False, parallel=parallel
        )

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        down: Tensor = self.down_proj(F.silu(gate).mul_(up), residual)
        return down


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    wanted: the rows to return, if not all; the others only leave their keys and values.
    """

    def __init__(self, config: ModelConfig, parallel: TensorParallel) -> None:
        super().__init__()
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, parallel)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.mlp = GatedMLP(config, parallel)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        segments: Sequence[Segment],
        layer: int,
        wanted: Tensor | None,
    ) -> Tensor:
        residual = x if wanted is None else x[wanted]
        x = self.self_attn(self.input_layernorm(x), rotary, segments, layer, wanted, residual)
        output: Tensor = self.mlp(self.post_attention_layernorm(x), x)
        return output


class LanguageModel(nn.Module):
    """Token vectors in, hidden states out; `embed` and `logits` are its two ends."""

    def __init__(self, config: ModelConfig, parallel: TensorParallel | None = None) -> None:
        super().__init__()
        parallel = parallel or TensorParallel()
        self.config = config
        self.embed_tokens = VocabParallelEmbedding(
            config.vocab_size, config.hidden_size, name="embed_tokens", parallel=parallel
        )
        self.layers = nn.ModuleList(
            DecoderLayer(config, parallel) for _ in range(config.num_layers)
        )
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else VocabParallelEmbedding(
                config.vocab_size, config.hidden_size, name="lm_head", parallel=parallel
            )
        )
        self.num_heads = len(parallel.share(config.num_heads, what="attention heads"))
        self.num_weights = sum(weight.numel() for weight in self.layers.parameters())
        self._num_kv_heads = len(
            parallel.share_or_copy(config.num_kv_heads, what="key-value heads")
        )
        self._word_pass: WordPass | None = None

    def quicken_words(self) -> None:
        """Compute words that are alone by compiled code from now on, where it gives the same.

        Once the layers are those that stay: it keeps where their weights lie.
        """
        weight = self.norm.weight
        if (
            weight.device.type == "cpu"
            and weight.dtype == torch.float32
            and self.embed_tokens.parallel.size == 1
        ):
            try:
                from pipeline.model.word_pass import WordPass  # noqa: PLC0415 - 0.3 s and 60 MB

                self._word_pass = WordPass.of(self)
            except Exception as error:  # noqa: BLE001 - a compiler's reasons; words can do without
                log.warning("words are not compiled, and slower: %s", error)

    def embed(self, ids: Tensor) -> Tensor:
        """ids: (S) int64; returns (S, D)."""
        vectors: Tensor = self.embed_tokens(ids)
        return vectors

    def forward(self, embeddings: Tensor, positions: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Hidden states of a flat batch; the segments' caches hold its tokens afterwards.

        embeddings: (S, D), the segments' rows one after another; positions: (3, S) integers
        returns: (S, D), or only the rows the segments want; normalised, ready for `logits`
        """
        if embeddings.shape[0] != sum(segment.num_tokens for segment in segments):
            raise ValueError(f"{embeddings.shape = } but segments are {segments}")
        cos, sin = multimodal_rotary(
            positions,
            head_dim=self.config.head_dim,
            theta=self.config.rope_theta,
            sections=self.config.mrope_section,
        )
        rotary = cos.to(embeddings.dtype), sin.to(embeddings.dtype)
        alone = self._word_pass
        if alone is not None and (cache := alone.cache_of(segments)):
            x = alone.forward(embeddings, rotary, cache)
        else:
            x = self._run_layers(embeddings, rotary, segments)
        for segment in segments:
            if segment.cache is not None:
                segment.cache.advance(segment.num_tokens)
        hidden: Tensor = self.norm(x)
        return hidden

    def _run_layers(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], segments: Sequence[Segment]
    ) -> Tensor:
        for index, layer in enumerate(self.layers):
            is_last = index == len(self.layers) - 1
            wanted = _wanted_rows(segments, x.device) if is_last else None
            x = layer(x, rotary, segments, index, wanted)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token of the vocabulary: hidden (R, D); returns (R, V)."""
        if self._word_pass is not None and len(hidden) == 1:
            return self._word_pass.score(hidden)
        return (self.lm_head or self.embed_tokens).score(hidden)

    def new_cache(self, capacity: int) -> KVCache:
        """An empty cache for one stream of up to `capacity` tokens, for this rank's heads."""
        weight = self.norm.weight
        return KVCache(
            num_layers=self.config.num_layers,
            num_kv_heads=self._num_kv_heads,
            head_dim=self.config.head_dim,
            capacity=capacity,
            dtype=weight.dtype,
            device=weight.device,
        )


def _wanted_rows(segments: Sequence[Segment], device: torch.device) -> Tensor | None:
    """Indices of the rows whose hidden states are wanted; None if that is all of them."""
    if all(segment.num_wanted == segment.num_tokens for segment in segments):
        return None
    ends = accumulate(segment.num_tokens for segment in segments)
    rows = [
        row
        for segment, end in zip(segments, ends, strict=True)
        for row in range(end - segment.num_wanted, end)
    ]
    return torch.tensor(rows, dtype=torch.int64, device=device)
