"""The published sizes on paper: parameter counts, shards and cache bytes, without any memory."""

from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import ModelConfig
from pipeline.errors import ConfigError
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.families.qwen2_vl.positions import text_positions
from pipeline.model.language import Segment
from pipeline.model.parallel import TensorParallel
from tests.tiny_model import Tiny, checkpoint, load, tiny_model, write_checkpoint

VISION = replace(Tiny().config.vision, depth=32, embed_dim=1280, num_heads=16, hidden_size=8192)
QWEN2_VL_72B = ModelConfig(
    hidden_size=8192,
    intermediate_size=29_568,
    num_layers=80,
    num_heads=64,
    num_kv_heads=8,
    vocab_size=152_064,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    mrope_section=(16, 24, 24),
    max_positions=32_768,
    tie_word_embeddings=False,
    vision=VISION,
    vision_start_id=151_652,
    vision_end_id=151_653,
    image_pad_id=151_655,
    video_pad_id=151_656,
)
QWEN2_VL_7B = replace(
    QWEN2_VL_72B,
    hidden_size=3584,
    intermediate_size=18_944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    vision=replace(VISION, hidden_size=3584),
)
QWEN2_VL_2B = replace(
    QWEN2_VL_72B,
    hidden_size=1536,
    intermediate_size=8960,
    num_layers=28,
    num_heads=12,
    num_kv_heads=2,
    vocab_size=151_936,
    tie_word_embeddings=True,
    vision=replace(VISION, hidden_size=1536),
)


def on_paper(config: ModelConfig, parallel: TensorParallel | None = None) -> Qwen2VL:
    with torch.device("meta"):
        return Qwen2VL(config, parallel)


def num_parameters(model: Qwen2VL) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (QWEN2_VL_2B, 2_208_985_600),
        (QWEN2_VL_7B, 8_291_375_616),
        (QWEN2_VL_72B, 73_405_560_320),
    ],
    ids=["2B", "7B", "72B"],
)
def test_parameters_are_as_many_as_published(config: ModelConfig, count: int) -> None:
    assert num_parameters(on_paper(config)) == count


def test_each_of_eight_ranks_holds_an_eighth_of_72b() -> None:
    shards = {
        name: tuple(parameter.shape)
        for name, parameter in on_paper(QWEN2_VL_72B, TensorParallel(5, 8)).named_parameters()
    }
    layer = "language.layers.79."
    assert shards["language.embed_tokens.weight"] == (19_008, 8192)
    assert shards["language.lm_head.weight"] == (19_008, 8192)
    assert shards[layer + "self_attn.qkv.weight"] == (8 * 128 + 2 * 128, 8192)
    assert shards[layer + "self_attn.qkv.bias"] == (8 * 128 + 2 * 128,)
    assert shards[layer + "self_attn.o_proj.weight"] == (8192, 8 * 128)
    assert shards[layer + "mlp.gate_up.weight"] == (2 * 3696, 8192)
    assert shards[layer + "mlp.down_proj.weight"] == (8192, 3696)
    assert shards["vision.blocks.31.attn.qkv.weight"] == (3 * 2 * 80, 1280)
    assert shards["vision.blocks.31.mlp.fc1.weight"] == (640, 1280)

    bf16_bytes = 2 * sum(prod(shape) for shape in shards.values())
    an_eighth = 2 * 73_405_560_320 / 8
    assert an_eighth < bf16_bytes < 1.001 * an_eighth  # norms and row biases are on every rank


def test_a_token_of_72b_takes_327680_bytes_of_cache_over_the_ranks() -> None:
    assert QWEN2_VL_72B.kv_bytes_per_token() == 327_680
    model = on_paper(QWEN2_VL_72B, TensorParallel(0, 8)).to(torch.bfloat16)
    assert model.language.new_cache(100).num_bytes == 100 * 327_680 // 8


@torch.inference_mode()
def test_72b_runs_on_paper() -> None:
    model = on_paper(QWEN2_VL_72B)
    cache = model.language.new_cache(16_384)
    with torch.device("meta"):
        tokens = model.vision(torch.zeros(4, 364, 644, 3, dtype=torch.uint8))
        hidden = model.language(tokens, text_positions(0, len(tokens)), [Segment(cache, 598)])
        logits = model.language.logits(hidden[-1:])
    assert tokens.shape == (2 * 13 * 23, 8192)
    assert logits.shape == (1, 152_064)
    assert cache.length == 598


@pytest.mark.parametrize("tied", [True, False])
def test_the_parts_name_every_tensor_of_a_checkpoint_with_its_shape(
    tmp_path: Path, tied: bool
) -> None:
    shape = Tiny(tied=tied)
    folder = write_checkpoint(tmp_path, shape)
    on_disk = {k: tuple(v.shape) for k, v in load_file(folder / "model.safetensors").items()}
    named = {part.tensor: part.shape for _, part in on_paper(shape.config).checkpoint_parts()}
    assert named == on_disk


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("vocab_size", [300, 301])
def test_the_ranks_together_hold_every_value_and_split_ones_once(
    size: int, vocab_size: int
) -> None:
    """Key-value heads are copied when there are more ranks than heads (here 2)."""
    shape = Tiny(num_heads=4, vision_heads=4, vocab_size=vocab_size)
    held: dict[str, torch.Tensor] = {}
    for rank in range(size):
        for _, part in on_paper(shape.config, TensorParallel(rank, size)).checkpoint_parts():
            part.source(held.setdefault(part.tensor, torch.zeros(part.shape))).add_(1)
    for name, count in held.items():
        copies = 2 if size == 4 and ("k_proj" in name or "v_proj" in name) else 1
        everywhere = any(s in name for s in ("norm", "ln_q", "patch_embed")) or name.endswith(
            ("attn.proj.bias", "fc2.bias", "mlp.2.bias")
        )
        assert count.unique().tolist() == [size if everywhere else copies], name


def test_a_checkpoint_written_and_read_by_parts_is_the_same_model() -> None:
    model = tiny_model(Tiny(seed=4))
    again = load(Qwen2VL(model.config), checkpoint(model))
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


@pytest.mark.parametrize(
    ("shape", "size", "what"),
    [
        (Tiny(), 3, "vision heads"),
        (Tiny(num_heads=6, num_kv_heads=3, vision_heads=4), 4, "attention heads"),
        (Tiny(num_heads=8, num_kv_heads=3, vision_heads=4), 4, "key-value heads"),
        (Tiny(intermediate_size=97), 2, "MLP features"),
    ],
)
def test_a_size_that_cannot_be_split_is_refused_by_name(shape: Tiny, size: int, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        on_paper(shape.config, TensorParallel(0, size))


@pytest.mark.parametrize("rank", [0, 1])
def test_the_parts_fill_every_parameter_once_but_for_padding(rank: int) -> None:
    model = on_paper(Tiny(vision_heads=4, vocab_size=301).config, TensorParallel(rank, 2))
    filled = {name: torch.zeros(p.shape) for name, p in model.named_parameters()}
    for name, part in model.checkpoint_parts():
        part.destination(filled[name]).add_(1)
    for name, count in filled.items():
        num_padded = rank if name.endswith(("embed_tokens.weight", "lm_head.weight")) else 0
        assert (count[: len(count) - num_padded] == 1).all(), name
        assert (count[len(count) - num_padded :] == 0).all(), name
