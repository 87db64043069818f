"""Multiplications and additions that a model makes of a video: arithmetic on its config.json."""

from pipeline.config import ModelConfig
from pipeline.types import Grid


def tower_flops(config: ModelConfig, grid: Grid) -> float:
    """Multiplications and additions of all temporal patches; attention stays within each."""
    vision = config.vision
    per_block = (4 + 2 * vision.mlp_ratio) * vision.embed_dim**2
    patches = grid.h * grid.w
    linear = 2 * patches * vision.depth * per_block
    attention = 4 * patches**2 * vision.embed_dim * vision.depth
    return float(grid.t * (linear + attention))


def prefill_flops(config: ModelConfig, num_tokens: int, *, num_before: int = 0) -> float:
    """Every weight of the layers once a token, and attention to what stands before."""
    width = config.num_heads * config.head_dim
    attention = 2 * num_tokens * (num_tokens + 2 * num_before) * width * config.num_layers
    return float(2 * num_tokens * language_weights(config, head=False) + attention)


def language_weights(config: ModelConfig, *, head: bool = True) -> int:
    """That a step reads; the table of embeddings is only looked up in."""
    size, kv = config.hidden_size, config.num_kv_heads * config.head_dim
    width = config.num_heads * config.head_dim
    layer = 2 * size * width + 2 * size * kv + 3 * size * config.intermediate_size
    return config.num_layers * layer + head * config.vocab_size * size
