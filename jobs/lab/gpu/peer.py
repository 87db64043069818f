"""transformers' Qwen2-VL with our weights, on the same device."""

from importlib.util import find_spec
from typing import Any

import torch

from jobs.lab.bench.peers import make_torchvision_importable
from pipeline.config import ModelConfig
from pipeline.model.language import LanguageModel
from pipeline.model.parallel import checkpoint_parts


def transformers_model(
    config: ModelConfig, ours: LanguageModel, *, device: str, dtype: torch.dtype
) -> Any | None:
    """The whole model with a tower of one layer, which nobody asks; None if not installed."""
    if find_spec("transformers") is None:
        return None
    make_torchvision_importable()
    from transformers import (  # noqa: PLC0415
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        logging,
    )

    logging.set_verbosity_error()
    theirs = Qwen2VLConfig.from_dict(
        {
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.num_kv_heads,
            "vocab_size": config.vocab_size,
            "rms_norm_eps": config.rms_norm_eps,
            "rope_theta": config.rope_theta,
            "max_position_embeddings": config.max_positions,
            "tie_word_embeddings": config.tie_word_embeddings,
            "rope_scaling": {"type": "mrope", "mrope_section": list(config.mrope_section)},
            "vision_start_token_id": config.vision_start_id,
            "vision_end_token_id": config.vision_end_id,
            "image_token_id": config.image_pad_id,
            "video_token_id": config.video_pad_id,
            "bos_token_id": None,
            "eos_token_id": None,
            "vision_config": {
                "depth": 1,
                "embed_dim": 64,
                "num_heads": 2,
                "hidden_size": config.hidden_size,
            },
        }
    )
    with torch.device(device):
        model: Any = Qwen2VLForConditionalGeneration(theirs)
        model = model.to(dtype).eval()
    _copy(ours, model)
    return model


@torch.no_grad()
def _copy(ours: LanguageModel, model: Any) -> None:
    """Slice by slice, as a checkpoint is read, the other way round."""
    theirs = dict(model.model.language_model.named_parameters())
    theirs["lm_head.weight"] = model.lm_head.weight
    parameters = dict(ours.named_parameters())
    for name, part in checkpoint_parts(ours):
        place = theirs[part.tensor].narrow(part.dim, part.start, part.length)
        place.copy_(part.destination(parameters[name]))
