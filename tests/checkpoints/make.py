"""Writes what one release of transformers writes for Qwen2-VL, and what it means by it.

Run in an environment that has that release; the README beside this file says how. It imports
nothing of the project, so that it runs there.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

# Importable without its compiled operators, which the releases of today's torch alone could load.
TORCHVISION = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    TORCHVISION.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import transformers  # noqa: E402

# hidden, MLP, layers, heads, kv heads, vocabulary, tied of the three published models
PUBLISHED = {
    "2B": (1536, 8960, 28, 12, 2, 151_936, True),
    "7B": (3584, 18_944, 28, 28, 4, 152_064, False),
    "72B": (8192, 29_568, 80, 64, 8, 152_064, False),
}
FIRST_RELEASE = "4.45.2"


def hub_config(name: str) -> dict[str, Any]:
    """config.json of a published model as the hub has it."""
    hidden, mlp, layers, heads, kv_heads, vocab, tied = PUBLISHED[name]
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": 151_643,
        "eos_token_id": 151_645,
        "vision_start_token_id": 151_652,
        "vision_end_token_id": 151_653,
        "vision_token_id": 151_654,
        "image_token_id": 151_655,
        "video_token_id": 151_656,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": mlp,
        "max_position_embeddings": 32_768,
        "max_window_layers": layers,
        "model_type": "qwen2_vl",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32_768,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": 32,
            "embed_dim": 1280,
            "mlp_ratio": 4,
            "num_heads": 16,
            "in_chans": 3,
            "hidden_size": hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vocab_size": vocab,
    }


def tiny_config(*, tied: bool) -> dict[str, Any]:
    """A model small enough to build: for what only a model that is saved writes."""
    small = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "vocab_size": 301,
        "tie_word_embeddings": tied,
        "bos_token_id": 294,
        "eos_token_id": 295,
        "vision_start_token_id": 296,
        "vision_end_token_id": 297,
        "vision_token_id": 298,
        "image_token_id": 299,
        "video_token_id": 300,
        "torch_dtype": "float32",
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }
    vision = {"depth": 2, "embed_dim": 40, "num_heads": 2, "hidden_size": 64}
    hub = hub_config("2B")
    return hub | small | {"vision_config": hub["vision_config"] | vision}


HUB_PIXELS = {
    "min_pixels": 3136,
    "max_pixels": 12_845_056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
}
PIXELS = {
    # first: 4.49 to 4.57 write the limits of a file they read into the class that the next one uses
    "defaults": {"image_processor_type": "Qwen2VLImageProcessor"},
    "hub": HUB_PIXELS,
    "fewer": HUB_PIXELS | {"max_pixels": 200_704},
    "floats": HUB_PIXELS | {"min_pixels": 3136.0, "max_pixels": 200_704.0},
    "half grey": HUB_PIXELS | {"image_mean": 0.5, "image_std": 0.5},
}


def make() -> dict[str, dict[str, Any]]:
    """Name -> {"files": of one folder by name, "means": what this release reads in them}."""
    cases = {f"config {name}": config_case(hub_config(name)) for name in PUBLISHED}
    cases["config defaults"] = config_case({"model_type": "qwen2_vl"})
    for name in PUBLISHED:
        older = written_by_the_first(name)
        if older:
            cases[f"config {name}, saved by {FIRST_RELEASE} before"] = config_case(older)
    for tied in (True, False):
        suffix = "tied" if tied else "untied"
        for tuning in (resized, frozen, merged):
            cases[f"{tuning.__name__} {suffix}"] = model_case(tiny_config(tied=tied), tuning)
    for name, content in PIXELS.items():
        for kind in ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLVideoProcessor"):
            if found := pixel_class(kind):
                cases[f"pixels {name}, {kind}"] = pixels_case(found, content)
    if processor := whole_processor():
        cases["pixels of a whole processor"] = processor
    return cases


def written_by_the_first(name: str) -> dict[str, Any] | None:
    """The config.json that the oldest release wrote, for the newer ones to read and write again."""
    file = Path(__file__).with_name(f"{FIRST_RELEASE}.json")
    if transformers.__version__ == FIRST_RELEASE or not file.exists():
        return None
    config: dict[str, Any] = json.loads(file.read_text())[f"config {name}"]["files"]["config.json"]
    return config


# --- config.json


def config_case(content: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "config.json"
        given.write_text(json.dumps(content))
        config = transformers.Qwen2VLConfig.from_pretrained(folder)
        config.architectures = content.get("architectures")
        given.unlink()
        config.save_pretrained(folder)
        return {"files": files_of(Path(folder)), "means": config_meaning(Path(folder))}


def model_case(content: dict[str, Any], tune: Any) -> dict[str, Any]:
    """The folder of a model that was tuned and saved; of its weights the shapes."""
    config = transformers.Qwen2VLConfig.from_dict(json.loads(json.dumps(content)))
    model = tune(transformers.Qwen2VLForConditionalGeneration(config).float())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder, safe_serialization=True)
        from safetensors import safe_open

        with safe_open(folder / "model.safetensors", framework="pt") as tensors:
            shapes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118
        return {
            "files": files_of(folder),
            "means": config_meaning(folder),
            "tensors": dict(sorted(shapes.items())),
        }


def resized(model: Any) -> Any:
    model.resize_token_embeddings(320)
    return model


def frozen(model: Any) -> Any:
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "visual" not in name
    return model


def merged(model: Any) -> Any:
    """A LoRA adapter beside the attention's layers, merged into them."""
    import peft

    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(model, lora).merge_and_unload()


def config_meaning(folder: Path) -> dict[str, Any]:
    config = transformers.Qwen2VLConfig.from_pretrained(folder)
    text, vision = getattr(config, "text_config", config), config.vision_config
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    theta = rope.get("rope_theta") or text.rope_theta
    is_five = transformers.__version__.startswith("5.")
    return {
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_layers": text.num_hidden_layers,
        "num_heads": text.num_attention_heads,
        "num_kv_heads": text.num_key_value_heads,
        "vocab_size": text.vocab_size,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": theta,
        "mrope_section": rope.get("mrope_section"),
        "max_positions": text.max_position_embeddings,
        # transformers 5 asks the outer object, 4.49 and later the inner one, if there is one
        "tie_word_embeddings": (config if is_five else text).tie_word_embeddings,
        "vision": {
            name: getattr(vision, name)
            for name in ("depth", "embed_dim", "num_heads", "mlp_ratio", "hidden_size")
        },
        "vision_start_id": getattr(config, "vision_start_token_id", None),
        "vision_end_id": getattr(config, "vision_end_token_id", None),
        "image_pad_id": getattr(config, "image_token_id", None),
        "video_pad_id": getattr(config, "video_token_id", None),
    }


# --- preprocessor_config.json and its siblings


def pixel_class(kind: str) -> Any:
    try:
        found = getattr(transformers, kind)
        found()
    except (ImportError, AttributeError, RuntimeError):
        return None
    return found


def pixels_case(kind: Any, content: dict[str, Any]) -> dict[str, Any]:
    processor = kind.from_dict(json.loads(json.dumps(content)))
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        means = pixels_meaning(kind.from_pretrained(folder))
        return {"files": files_of(Path(folder)), "means": means}


def pixels_meaning(processor: Any) -> dict[str, Any]:
    size = processor.size or {}
    least, most = (getattr(processor, name, None) for name in ("min_pixels", "max_pixels"))
    return {
        "image_mean": three(processor.image_mean),
        "image_std": three(processor.image_std),
        "min_pixels": least if least is not None else size["shortest_edge"],
        "max_pixels": most if most is not None else size["longest_edge"],
    }


def three(value: Any) -> list[float]:
    return list(value) if isinstance(value, list | tuple) else [value] * 3


def whole_processor() -> dict[str, Any] | None:
    from tokenizers import Tokenizer, models

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    transformers.Qwen2VLProcessor.tokenizer_class = "PreTrainedTokenizerFast"
    parts = {
        "image_processor": transformers.Qwen2VLImageProcessor.from_dict(dict(PIXELS["fewer"])),
        "tokenizer": tokenizer,
    }
    if video := pixel_class("Qwen2VLVideoProcessor"):
        parts["video_processor"] = video()
    processor = transformers.Qwen2VLProcessor(**parts)
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        means = pixels_meaning(parts["image_processor"])
        files = files_of(Path(folder))
        return {"files": {k: v for k, v in files.items() if "process" in k}, "means": means}


def files_of(folder: Path) -> dict[str, Any]:
    return {file.name: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    cases = make()
    lines = [f"{json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()]
    Path(sys.argv[1]).write_text("{" + ",\n".join(lines) + "}\n")
    print(transformers.__version__, len(cases), "cases", *cases, sep="\n  ")
