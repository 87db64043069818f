"""Writes a trained model as a standard Qwen2-VL folder, read by the ordinary checkpoint path."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from jobs.lab.train.dataset import MAX_PIXELS, MIN_PIXELS
from pipeline.config import ModelConfig
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.model.tokenizer import Tokenizer

STORED = torch.float16  # half the bytes; the values are small and keep three digits


def export(model: Qwen2VL, tokenizer: Tokenizer, folder: Path, *, card: str) -> None:
    """Write config, weights, tokenizer, preprocessor and generation config, and the model card."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(tensors(model), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # the library makes it for the owner alone
    (folder / "tokenizer.json").write_text(tokenizer.json)
    (folder / "README.md").write_text(card)
    end = tokenizer.control_id("<|im_end|>")
    stop = tokenizer.control_id("<|endoftext|>")
    own = {"eos_token_id": end, "vidray": {"demo_model": True}}
    write_json(folder / "config.json", hub_config(model.config) | own)
    write_json(
        folder / "generation_config.json",
        {"do_sample": False, "eos_token_id": [end, stop], "pad_token_id": stop},
    )
    write_json(folder / "preprocessor_config.json", hub_preprocessor(model.config))


def tensors(model: Qwen2VL) -> dict[str, torch.Tensor]:
    """Every tensor by the hub's name."""
    parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
    found: dict[str, torch.Tensor] = {}
    for name, part in model.checkpoint_parts():
        whole = found.setdefault(part.tensor, torch.empty(part.shape, dtype=STORED))
        part.source(whole).copy_(part.destination(parameters[name]))
    return found


def hub_config(config: ModelConfig) -> dict[str, Any]:
    """config.json in the hub's flat form."""
    vision = config.vision
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "torch_dtype": str(STORED).removeprefix("torch."),
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "vocab_size": config.vocab_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": list(config.mrope_section)},
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_sliding_window": False,
        "vision_start_token_id": config.vision_start_id,
        "vision_end_token_id": config.vision_end_id,
        "image_token_id": config.image_pad_id,
        "video_token_id": config.video_pad_id,
        "vision_config": {
            "depth": vision.depth,
            "embed_dim": vision.embed_dim,
            "num_heads": vision.num_heads,
            "mlp_ratio": int(vision.mlp_ratio),  # as transformers requires it
            "hidden_size": vision.hidden_size,
            "in_channels": vision.in_channels,
            "patch_size": config.vision.geometry.patch,
            "temporal_patch_size": config.vision.geometry.temporal,
            "spatial_merge_size": config.vision.geometry.merge,
            "hidden_act": "quick_gelu",
        },
    }


def hub_preprocessor(config: ModelConfig) -> dict[str, Any]:
    """preprocessor_config.json; its limits keep frames as small as those of training."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": MIN_PIXELS,
        "max_pixels": MAX_PIXELS,
        "patch_size": config.vision.geometry.patch,
        "temporal_patch_size": config.vision.geometry.temporal,
        "merge_size": config.vision.geometry.merge,
        "image_mean": list(config.vision.image_mean),
        "image_std": list(config.vision.image_std),
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
