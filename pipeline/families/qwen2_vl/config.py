"""What config.json says about the model, as the transformers that wrote it would read it.

Flat, as on the hub and up to transformers 4.51; nested with `text_config` from then on, some of it
said twice until 5 says it once. What a file leaves out, or has as null, is the default of the class
that wrote it: transformers 4.45 to 4.51 leave out of `vision_config` all that equals it. What our
model can't compute is refused here by name, never half-honoured.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveFloat

from pipeline.config import ModelConfig, Quantization, VisionConfig
from pipeline.errors import CheckpointError
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.preprocessor_config import Preprocessing, load_preprocessing
from pipeline.families.qwen2_vl.quantization import read_quantization
from pipeline.model.folder import HubFields, parse_fields, read_json, without_nulls
from pipeline.settings import shown
from pipeline.types import Geometry

CONFIG_FILE = "config.json"
ARCHITECTURE = "Qwen2VLForConditionalGeneration"

# Generous, and small enough that a hostile config can't keep us busy before a tensor is seen.
Depth = Annotated[int, Field(ge=1, le=1024)]
Width = Annotated[int, Field(ge=1, le=1 << 20)]
Side = Annotated[int, Field(ge=1, le=256)]
Group = Annotated[int, Field(ge=1, le=16)]


class _Rope(HubFields):
    mrope_section: Annotated[list[Width], Field(min_length=3, max_length=3)] = [16, 24, 24]
    rope_theta: PositiveFloat = 1e6
    type: str = "mrope"
    rope_type: str = "default"  # transformers 5 renames "mrope" so, and keeps the sections


class _VisionRope(HubFields):
    rope_theta: PositiveFloat = 1e4


class _Vision(HubFields):
    depth: Depth = 32
    embed_dim: Width = 1280
    num_heads: Width = 16
    mlp_ratio: PositiveFloat = 4
    hidden_size: Width = 3584
    in_channels: int = 3
    patch_size: Side = GEOMETRY.patch
    temporal_patch_size: Group = GEOMETRY.temporal
    spatial_merge_size: Group = GEOMETRY.merge
    hidden_act: str = "quick_gelu"
    rope_parameters: _VisionRope = _VisionRope()

    @property
    def geometry(self) -> Geometry:
        return Geometry(
            patch=self.patch_size,
            merge=self.spatial_merge_size,
            temporal=self.temporal_patch_size,
        )


class _Text(HubFields):
    """The language model; the defaults are those of the 72B."""

    hidden_size: Width = 8192
    intermediate_size: Width = 29_568
    num_hidden_layers: Depth = 80
    num_attention_heads: Width = 64
    num_key_value_heads: Width = 8
    vocab_size: Width = 152_064
    rms_norm_eps: PositiveFloat = 1e-5
    rope_scaling: _Rope = _Rope()
    max_position_embeddings: Width = 32_768
    tie_word_embeddings: bool = False
    head_dim: Width | None = None
    hidden_act: str = "silu"
    use_sliding_window: bool = False


class _Outer(HubFields):
    """What stands outside of `text_config` in every form."""

    vision_config: _Vision = _Vision()
    tie_word_embeddings: bool = False
    vision_start_token_id: NonNegativeInt = 151_652
    vision_end_token_id: NonNegativeInt = 151_653
    image_token_id: NonNegativeInt = 151_655
    video_token_id: NonNegativeInt = 151_656


def load_config(path: Path) -> ModelConfig:
    """The model in this folder; CheckpointError if it is not a Qwen2-VL we can run."""
    content = read_json(path, CONFIG_FILE)
    text_content = language_fields(content)
    _require_family(content)
    outer = parse_fields(_Outer, CONFIG_FILE, without_nulls(content))
    text = parse_fields(_Text, CONFIG_FILE, _language(text_content))
    _require_supported(text, outer.vision_config)
    preprocessing = load_preprocessing(path, geometry=outer.vision_config.geometry)
    section = content.get("quantization_config") or text_content.get("quantization_config")
    config = _model(text, outer, preprocessing, read_quantization(section, CONFIG_FILE))
    _require_consistent(config, text.head_dim)
    return config


def language_fields(content: dict[str, Any]) -> dict[str, Any]:
    """Where config.json speaks of the language model: `text_config` alone, if there is one.

    From 4.52 on transformers reads no field of the language model beside it; what 4.52 to 4.57
    leave there is what was loaded, not what was changed since, as a resized vocabulary.
    """
    text = content.get("text_config")
    if text is not None and not isinstance(text, dict):
        raise _refused(f"text_config must be an object, got {shown(text)}")
    return content if text is None else text


def _require_family(content: dict[str, Any]) -> None:
    family, architectures = content.get("model_type"), content.get("architectures")
    if family != "qwen2_vl":
        raise _refused(f"model_type is {family!r}; only 'qwen2_vl' is supported")
    named = [ARCHITECTURE] if architectures is None else architectures  # a config saved by itself
    if not isinstance(named, list) or ARCHITECTURE not in named:
        raise _refused(f"architectures is {architectures!r}; needs {ARCHITECTURE!r}")


def _language(content: dict[str, Any]) -> dict[str, Any]:
    """As transformers 5 has it: the rotation under one name, with its base inside."""
    text: dict[str, Any] = without_nulls(content)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if isinstance(rope, dict) and "rope_theta" in text:
        rope = {"rope_theta": text["rope_theta"]} | rope
    if "num_key_value_heads" in content and "num_key_value_heads" not in text:  # null: no sharing
        text["num_key_value_heads"] = text.get("num_attention_heads", _Text().num_attention_heads)
    return text | {"rope_scaling": rope}


def _require_supported(text: _Text, vision: _Vision) -> None:
    rope = text.rope_scaling
    table: tuple[tuple[str, object, tuple[object, ...]], ...] = (
        ("hidden_act", text.hidden_act, ("silu",)),
        ("use_sliding_window", text.use_sliding_window, (False,)),
        ("rope type", rope.type, ("mrope", "default")),
        ("rope_type", rope.rope_type, ("mrope", "default")),
        ("vision hidden_act", vision.hidden_act, ("quick_gelu",)),
        ("vision rope_theta", vision.rope_parameters.rope_theta, (1e4,)),
        ("vision in_channels", vision.in_channels, (3,)),
        ("vision hidden_size", vision.hidden_size, (text.hidden_size,)),
    )
    for name, value, supported in table:
        if value not in supported:
            expected = " or ".join(map(repr, supported))
            raise _refused(f"{name} is {value!r}; only {expected} is supported")


def _require_consistent(config: ModelConfig, head_dim: int | None) -> None:
    vision = config.vision
    ids = (config.vision_start_id, config.vision_end_id, config.image_pad_id, config.video_pad_id)
    rules = {
        "hidden_size must divide by num_attention_heads": config.hidden_size % config.num_heads
        == 0,
        f"head_dim {head_dim} must be hidden_size / num_attention_heads": (
            head_dim in (None, config.head_dim)
        ),
        "num_attention_heads must divide by num_key_value_heads": (
            config.num_heads % config.num_kv_heads == 0
        ),
        f"mrope_section must add up to half of head_dim {config.head_dim}": (
            2 * sum(config.mrope_section) == config.head_dim
        ),
        "vision embed_dim must divide by 4 * num_heads": (
            vision.embed_dim % (4 * vision.num_heads) == 0
        ),
        f"special token ids must differ and stay below vocab_size {config.vocab_size}": (
            len(set(ids)) == len(ids) and max(ids) < config.vocab_size
        ),
    }
    for rule, holds in rules.items():
        if not holds:
            raise _refused(rule)


def _model(
    text: _Text,
    outer: _Outer,
    preprocessing: Preprocessing,
    quantization: Quantization | None,
) -> ModelConfig:
    vision, (time, height, width) = outer.vision_config, text.rope_scaling.mrope_section
    return ModelConfig(
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        num_layers=text.num_hidden_layers,
        num_heads=text.num_attention_heads,
        num_kv_heads=text.num_key_value_heads,
        vocab_size=text.vocab_size,
        rms_norm_eps=text.rms_norm_eps,
        rope_theta=text.rope_scaling.rope_theta,
        mrope_section=(time, height, width),
        max_positions=text.max_position_embeddings,
        # saved by 4.x inside, by 5 outside; 5 takes either
        tie_word_embeddings=text.tie_word_embeddings or outer.tie_word_embeddings,
        vision=VisionConfig(
            depth=vision.depth,
            embed_dim=vision.embed_dim,
            num_heads=vision.num_heads,
            mlp_ratio=vision.mlp_ratio,
            hidden_size=vision.hidden_size,
            geometry=vision.geometry,
            image_mean=preprocessing.image_mean,
            image_std=preprocessing.image_std,
        ),
        vision_start_id=outer.vision_start_token_id,
        vision_end_id=outer.vision_end_token_id,
        image_pad_id=outer.image_token_id,
        video_pad_id=outer.video_token_id,
        quantization=quantization,
    )


def _refused(reason: str) -> CheckpointError:
    return CheckpointError(CONFIG_FILE, reason)
