"""What config.json says about the model, in either of its two forms.

Flat, as on the hub, or nested with `text_config` and `rope_parameters`, as transformers 5 writes
it. What our model can't compute is refused here by name, never half-honoured.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveFloat

from pipeline.config import ModelConfig, VisionConfig
from pipeline.errors import CheckpointError
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.preprocessor_config import Preprocessing, load_preprocessing
from pipeline.model.folder import HubFields, parse_fields, read_json
from pipeline.types import Geometry

CONFIG_FILE = "config.json"
ARCHITECTURE = "Qwen2VLForConditionalGeneration"

# Generous, and small enough that a hostile config can't keep us busy before a tensor is seen.
Depth = Annotated[int, Field(ge=1, le=1024)]
Width = Annotated[int, Field(ge=1, le=1 << 20)]
Side = Annotated[int, Field(ge=1, le=256)]
Group = Annotated[int, Field(ge=1, le=16)]


class _Rope(HubFields):
    mrope_section: Annotated[list[Width], Field(min_length=3, max_length=3)]
    rope_theta: PositiveFloat
    type: str = "mrope"
    rope_type: str = "default"  # transformers 5 renames "mrope" so, and keeps the sections


class _Vision(HubFields):
    depth: Depth
    embed_dim: Width
    num_heads: Width
    mlp_ratio: PositiveFloat
    hidden_size: Width
    in_channels: int = 3
    patch_size: Side = GEOMETRY.patch
    temporal_patch_size: Group = GEOMETRY.temporal
    spatial_merge_size: Group = GEOMETRY.merge
    hidden_act: str = "quick_gelu"

    @property
    def geometry(self) -> Geometry:
        return Geometry(
            patch=self.patch_size,
            merge=self.spatial_merge_size,
            temporal=self.temporal_patch_size,
        )


class _Model(HubFields):
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Depth
    num_attention_heads: Width
    num_key_value_heads: Width
    vocab_size: Width
    rms_norm_eps: PositiveFloat
    rope_scaling: _Rope
    max_position_embeddings: Width
    tie_word_embeddings: bool = False
    head_dim: Width | None = None
    hidden_act: str = "silu"
    use_sliding_window: bool = False
    vision_config: _Vision
    vision_start_token_id: NonNegativeInt
    vision_end_token_id: NonNegativeInt
    image_token_id: NonNegativeInt
    video_token_id: NonNegativeInt


def load_config(path: Path) -> ModelConfig:
    """The model in this folder; CheckpointError if it is not a Qwen2-VL we can run."""
    content = read_json(path, CONFIG_FILE)
    _require_family(content)
    fields = parse_fields(_Model, CONFIG_FILE, _flat(content))
    _require_supported(fields)
    preprocessing = load_preprocessing(path, geometry=fields.vision_config.geometry)
    config = _model(fields, preprocessing)
    _require_consistent(config, fields.head_dim)
    return config


def _require_family(content: dict[str, Any]) -> None:
    family, architectures = content.get("model_type"), content.get("architectures", [ARCHITECTURE])
    if family != "qwen2_vl":
        raise _refused(f"model_type is {family!r}; only 'qwen2_vl' is supported")
    if not isinstance(architectures, list) or ARCHITECTURE not in architectures:
        raise _refused(f"architectures is {architectures!r}; needs {ARCHITECTURE!r}")
    if content.get("quantization_config"):
        raise _refused("a quantised checkpoint; only plain weights are supported")


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """The flat form of either form; the outer object wins where both speak."""
    text = content.get("text_config")
    flat = (text if isinstance(text, dict) else {}) | content
    rope = flat.get("rope_parameters") or flat.get("rope_scaling")
    if isinstance(rope, dict) and "rope_theta" in flat:
        rope = {"rope_theta": flat["rope_theta"]} | rope
    return flat | {"rope_scaling": rope}


def _require_supported(fields: _Model) -> None:
    rope, vision = fields.rope_scaling, fields.vision_config
    table: tuple[tuple[str, object, tuple[object, ...]], ...] = (
        ("hidden_act", fields.hidden_act, ("silu",)),
        ("use_sliding_window", fields.use_sliding_window, (False,)),
        ("rope type", rope.type, ("mrope", "default")),
        ("rope_type", rope.rope_type, ("mrope", "default")),
        ("vision hidden_act", vision.hidden_act, ("quick_gelu",)),
        ("vision in_channels", vision.in_channels, (3,)),
        ("vision hidden_size", vision.hidden_size, (fields.hidden_size,)),
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


def _model(fields: _Model, preprocessing: Preprocessing) -> ModelConfig:
    vision, (time, height, width) = fields.vision_config, fields.rope_scaling.mrope_section
    return ModelConfig(
        hidden_size=fields.hidden_size,
        intermediate_size=fields.intermediate_size,
        num_layers=fields.num_hidden_layers,
        num_heads=fields.num_attention_heads,
        num_kv_heads=fields.num_key_value_heads,
        vocab_size=fields.vocab_size,
        rms_norm_eps=fields.rms_norm_eps,
        rope_theta=fields.rope_scaling.rope_theta,
        mrope_section=(time, height, width),
        max_positions=fields.max_position_embeddings,
        tie_word_embeddings=fields.tie_word_embeddings,
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
        vision_start_id=fields.vision_start_token_id,
        vision_end_id=fields.vision_end_token_id,
        image_pad_id=fields.image_token_id,
        video_pad_id=fields.video_token_id,
    )


def _refused(reason: str) -> CheckpointError:
    return CheckpointError(CONFIG_FILE, reason)
