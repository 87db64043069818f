"""Vision tower and prefill against transformers' modules and bare matmuls of their shapes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.lab.bench.measure import Row, milliseconds
from jobs.lab.bench.peers import transformers_model
from jobs.machine import matmul_seconds
from jobs.timing import interleaved
from pipeline.config import ModelConfig, VisionConfig
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.families.qwen2_vl.positions import text_positions
from pipeline.families.qwen2_vl.vision import cut
from pipeline.model.language import Segment
from pipeline.model.packed_weights import pack
from pipeline.model.weights import load_model
from pipeline.types import Grid

GRID = Grid(4, 18, 32, GEOMETRY)  # four frame pairs at 252x448
PREFILL_TOKENS = 1024
LIMIT_TARGET = 0.7
PEER_TARGET = 1.1


def rows(checkpoint: Path, *, rounds: int) -> Iterator[Row]:
    """Yield the table's rows; both models hold the same weights and are timed in turn."""
    ours, theirs = load_model(checkpoint), transformers_model(checkpoint)
    pack(ours.vision)
    pack(ours.language)
    with torch.inference_mode():
        yield from _vision(ours, theirs, rounds)
        yield from _prefill(ours, theirs, rounds)


def _vision(ours: Qwen2VL, theirs: Any, rounds: int) -> Iterator[Row]:
    config = ours.config.vision
    size = GRID.size
    frames = torch.randint(0, 256, (2 * GRID.t, size.height, size.width, 3), dtype=torch.uint8)
    grid = torch.tensor([[GRID.t, GRID.h, GRID.w]])
    pixels = _normalised_patches(frames, config)
    seconds = interleaved(
        {
            "vidray": lambda: ours.vision(frames),
            "transformers": lambda: theirs.model.visual(pixels, grid_thw=grid),
        },
        rounds=rounds,
    )
    yield from _compare("vision tower, 4 frame pairs", seconds, _vision_matmuls(config), rounds)


def _prefill(ours: Qwen2VL, theirs: Any, rounds: int) -> Iterator[Row]:
    config = ours.config
    embeddings = torch.randn(PREFILL_TOKENS, config.hidden_size)
    positions = text_positions(0, PREFILL_TOKENS)

    def prefill() -> Tensor:
        cache = ours.language.new_cache(PREFILL_TOKENS)
        segments = [Segment(cache, PREFILL_TOKENS, num_outputs=1)]
        hidden: Tensor = ours.language(embeddings, positions, segments)
        return hidden

    def peer() -> object:
        return theirs.model.language_model(
            inputs_embeds=embeddings[None], position_ids=positions[:, None], use_cache=True
        )

    seconds = interleaved({"vidray": prefill, "transformers": peer}, rounds=rounds)
    what = f"prefill, {PREFILL_TOKENS} tokens"
    yield from _compare(what, seconds, _language_matmuls(config), rounds)


def _compare(
    what: str, seconds: dict[str, float], shapes: list[tuple[int, int, int]], rounds: int
) -> Iterator[Row]:
    limit = matmul_seconds(shapes, rounds=rounds)
    ours, theirs = seconds["vidray"], seconds["transformers"]
    yield Row(
        what=what,
        vidray=milliseconds(ours),
        peer=f"transformers {milliseconds(theirs)}",
        ratio=theirs / ours,
        target=PEER_TARGET,
    )
    yield Row(
        what=f"{what}: share of the limit",
        vidray=milliseconds(ours),
        peer=f"bare matmuls {milliseconds(limit)}",
        ratio=limit / ours,
        target=LIMIT_TARGET,
    )


def _vision_matmuls(config: VisionConfig) -> list[tuple[int, int, int]]:
    """(M, K, N) of every linear layer, and of attention's two products per head and frame pair."""
    patches, width = GRID.num_patches, config.embed_dim
    inner, merged = int(width * config.mlp_ratio), 4 * width
    per_pair = GRID.h * GRID.w
    block = [
        (patches, width, 3 * width),
        (patches, width, width),
        (patches, width, inner),
        (patches, inner, width),
        *[(per_pair, config.head_dim, per_pair), (per_pair, per_pair, config.head_dim)]
        * (config.num_heads * GRID.t),
    ]
    merger = [(patches // 4, merged, merged), (patches // 4, merged, config.hidden_size)]
    return [(patches, config.patch_dim, width), *block * config.depth, *merger]


def _language_matmuls(config: ModelConfig) -> list[tuple[int, int, int]]:
    """(M, K, N) of every linear layer; causal attention's products count half."""
    tokens, width = PREFILL_TOKENS, config.hidden_size
    heads = config.num_heads * config.head_dim
    layer = [
        (tokens, width, heads + 2 * config.num_kv_heads * config.head_dim),
        (tokens, heads, width),
        (tokens, width, 2 * config.intermediate_size),
        (tokens, config.intermediate_size, width),
        *[(tokens // 2, config.head_dim, tokens), (tokens // 2, tokens, config.head_dim)]
        * config.num_heads,
    ]
    return layer * config.num_layers


def _normalised_patches(frames: Tensor, config: VisionConfig) -> Tensor:
    """Patches as transformers wants them: (N, C * 2 * 14 * 14) float."""
    mean, std = torch.tensor(config.image_mean), torch.tensor(config.image_std)
    columns = cut((frames / 255 - mean) / std, GEOMETRY)
    channels_last: Tensor = columns.unflatten(-1, (2, 14, 14, 3))
    return channels_last.permute(0, 4, 1, 2, 3).flatten(1).contiguous()
