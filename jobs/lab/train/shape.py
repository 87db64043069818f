"""How large vidray-demo is, and how a model that has learnt nothing starts."""

import math

import torch
from torch import nn

from pipeline.config import ModelConfig, VisionConfig
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.families.qwen2_vl.preprocessor_config import MEAN, STD

# Clips are at most 10 steps long and 8 tokens wide, so the rotary waves are short: with Qwen2-VL's
# theta of a million, neighbouring columns would look the same. Of the 16 frequencies the last ten
# hardly turn over such distances: by them, words find what they mean wherever it stands.
ROPE_THETA = 1000.0
MROPE_SECTION = (2, 3, 11)


def demo_config(*, vocab_size: int, special_ids: dict[str, int]) -> ModelConfig:
    """The shape of vidray-demo; special_ids maps special tokens to the ids of its tokenizer."""
    vision = VisionConfig(
        depth=6,
        embed_dim=128,
        num_heads=4,
        mlp_ratio=3.0,
        hidden_size=192,
        geometry=GEOMETRY,
        image_mean=MEAN,
        image_std=STD,
    )
    return ModelConfig(
        hidden_size=192,
        intermediate_size=384,
        num_layers=6,
        num_heads=6,
        num_kv_heads=3,
        vocab_size=vocab_size,
        rms_norm_eps=1e-6,
        rope_theta=ROPE_THETA,
        mrope_section=MROPE_SECTION,
        max_positions=4096,
        tie_word_embeddings=True,
        vision=vision,
        vision_start_id=special_ids["<|vision_start|>"],
        vision_end_id=special_ids["<|vision_end|>"],
        image_pad_id=special_ids["<|image_pad|>"],
        video_pad_id=special_ids["<|video_pad|>"],
    )


@torch.no_grad()
def initialise(model: nn.Module, *, seed: int) -> None:
    """Random matrices scaled by their inputs, smaller where they add to the residual."""
    generator = torch.Generator().manual_seed(seed)
    depth = sum("norm" in name and name.endswith("weight") for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        std = parameter[0].numel() ** -0.5
        if any(part in name for part in ("attn.proj", "o_proj", "mlp.fc2", "down_proj")):
            std /= math.sqrt(max(depth, 1))
        parameter.normal_(0.0, std, generator=generator)


def new_model(config: ModelConfig, *, seed: int) -> Qwen2VL:
    model = Qwen2VL(config)
    initialise(model, seed=seed)
    return model
