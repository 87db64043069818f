"""The published sizes of Qwen2-VL with random weights, whole or one rank's share of them."""

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from pipeline.config import ModelConfig, VisionConfig
from pipeline.families.qwen2_vl.vision import VisionTower
from pipeline.model.language import LanguageModel
from pipeline.model.parallel import TensorParallel
from pipeline.model.weights import allocate

Module = TypeVar("Module", bound=nn.Module)


def small(config: ModelConfig) -> ModelConfig:
    """The same ratios with two layers, to go through a check on a CPU in a second."""
    vision = replace(config.vision, depth=1, embed_dim=64, num_heads=2, hidden_size=256)
    return replace(
        config,
        hidden_size=256,
        intermediate_size=512,
        num_layers=2,
        num_heads=8,
        num_kv_heads=2,
        vocab_size=512,
        mrope_section=(4, 6, 6),
        max_positions=32_768,
        vision=vision,
        vision_start_id=505,
        vision_end_id=506,
        image_pad_id=507,
        video_pad_id=508,
    )


@dataclass(frozen=True, slots=True)
class OneOfMany(TensorParallel):
    """A rank without its peers: its share of the work, and nothing of what they would say."""

    def all_reduce(self, x: Tensor) -> Tensor:
        return x

    def all_gather(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.size, dim=-1)


def language_model(
    config: ModelConfig,
    parallel: TensorParallel | None = None,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> LanguageModel:
    with torch.device("meta"):
        model = LanguageModel(config, parallel)
    return _filled(model, dtype, device)


def vision_tower(
    config: VisionConfig, *, dtype: torch.dtype, device: torch.device | str
) -> VisionTower:
    with torch.device("meta"):
        tower = VisionTower(config)
    return _filled(tower, dtype, device)


def _filled(module: Module, dtype: torch.dtype, device: torch.device | str) -> Module:
    """Random matrices of a trained model's scale, seeded; norms are 1, biases 0."""
    allocate(module, dtype, torch.device(device))
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.02, generator=generator)
        else:
            parameter.data.fill_(float("norm" in name or "ln_q" in name))
    return module.requires_grad_(False).eval()
