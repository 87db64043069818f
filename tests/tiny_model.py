"""Qwen2-VL checkpoints of a few hundred kilobytes: random, seeded, the real architecture.

`tiny_model` needs only the project. `write_checkpoint` and `Reference` go through transformers,
whose modules are the oracle: given explicit positions they compute what the paper describes.
"""

import json
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from jobs.lab.bench.peers import make_torchvision_importable
from pipeline.config import ModelConfig, VisionConfig
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.families.qwen2_vl.positions import (
    position_after_video,
    text_positions,
    video_positions,
)
from pipeline.families.qwen2_vl.preprocessor_config import MEAN, STD
from pipeline.model.packed_weights import pack
from pipeline.model.parallel import TensorParallel
from pipeline.model.weights import load_model
from pipeline.types import Geometry, Grid, Size

Layout = Literal["hub", "nested"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """The shape of a tiny checkpoint and how it lies on disk."""

    seed: int = 0
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 16
    intermediate_size: int = 96
    vocab_size: int = 301
    tied: bool = False
    vision_depth: int = 2
    vision_heads: int = 2
    vision_head_dim: int = 20
    layout: Layout = "hub"
    shard_size: str = "1GB"
    geometry: Geometry = GEOMETRY

    @property
    def config(self) -> ModelConfig:
        hidden_size = self.num_heads * self.head_dim
        pairs = self.head_dim // 2
        spatial = pairs * 3 // 8  # the same shares as the real 16, 24, 24
        return ModelConfig(
            hidden_size=hidden_size,
            intermediate_size=self.intermediate_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            vocab_size=self.vocab_size,
            rms_norm_eps=1e-6,
            rope_theta=1e6,
            mrope_section=(pairs - 2 * spatial, spatial, spatial),
            max_positions=32_768,
            tie_word_embeddings=self.tied,
            vision=VisionConfig(
                depth=self.vision_depth,
                embed_dim=self.vision_heads * self.vision_head_dim,
                num_heads=self.vision_heads,
                mlp_ratio=4,
                hidden_size=hidden_size,
                geometry=self.geometry,
                image_mean=MEAN,
                image_std=STD,
            ),
            vision_start_id=self.vocab_size - 5,
            vision_end_id=self.vocab_size - 4,
            image_pad_id=self.vocab_size - 2,
            video_pad_id=self.vocab_size - 1,
        )


# Seeds, head sizes, tied and untied, one file and many, both name layouts, one and many groups.
VARIANTS = (
    Tiny(seed=1),
    Tiny(seed=2, tied=True, layout="nested"),
    Tiny(seed=3, head_dim=32, num_kv_heads=1, vision_head_dim=16, shard_size="60KB"),
    Tiny(seed=4, num_kv_heads=4, vision_heads=1, tied=True, shard_size="60KB", layout="nested"),
)


def tiny_model(shape: Tiny, parallel: TensorParallel | None = None) -> Qwen2VL:
    """A random model without any file or transformers; equal seeds, equal whole weights."""
    whole = _initialise(Qwen2VL(shape.config), shape.seed)
    if parallel is None or parallel.size == 1:
        return whole
    return load(Qwen2VL(shape.config, parallel), checkpoint(whole))


def load(model: Qwen2VL, tensors: dict[str, Tensor]) -> Qwen2VL:
    """Fill a model from whole checkpoint tensors under the hub's names."""
    parameters = dict(model.named_parameters())
    for name, part in model.checkpoint_parts():
        part.destination(parameters[name]).copy_(part.source(tensors[part.tensor]))
    return model


def checkpoint(model: Qwen2VL) -> dict[str, Tensor]:
    """Whole checkpoint tensors of a model that is not split."""
    parameters, tensors = dict(model.named_parameters()), dict[str, Tensor]()
    for name, part in model.checkpoint_parts():
        tensor = tensors.setdefault(part.tensor, torch.empty(part.shape))
        part.source(tensor).copy_(part.destination(parameters[name]))
    return tensors


def _initialise(model: torch.nn.Module, seed: int) -> Any:
    """Large random weights: a tiny model's logits then depend on everything before them."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 2 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.data = noise * scale + (parameter.ndim == 1)
    return model


def hub_config(shape: Tiny) -> dict[str, Any]:
    """config.json as the hub has it: flat."""
    config = shape.config
    sections = list(config.mrope_section)
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": sections},
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "torch_dtype": "float32",
        "bos_token_id": config.vocab_size - 7,
        "eos_token_id": config.vocab_size - 6,
        "vision_start_token_id": config.vision_start_id,
        "vision_end_token_id": config.vision_end_id,
        "vision_token_id": config.vocab_size - 3,
        "image_token_id": config.image_pad_id,
        "video_token_id": config.video_pad_id,
        "vision_config": {
            "depth": config.vision.depth,
            "embed_dim": config.vision.embed_dim,
            "num_heads": config.vision.num_heads,
            "mlp_ratio": config.vision.mlp_ratio,
            "hidden_size": config.vision.hidden_size,
            "in_chans": 3,
            "patch_size": shape.geometry.patch,
            "spatial_patch_size": shape.geometry.patch,
            "spatial_merge_size": shape.geometry.merge,
            "temporal_patch_size": shape.geometry.temporal,
        },
    }


def preprocessor_config(geometry: Geometry = GEOMETRY) -> dict[str, Any]:
    """preprocessor_config.json as the hub has it."""
    return {
        "min_pixels": 4 * geometry.pixels_per_token,
        "max_pixels": 16384 * geometry.pixels_per_token,
        "patch_size": geometry.patch,
        "temporal_patch_size": geometry.temporal,
        "merge_size": geometry.merge,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
    }


def import_transformers() -> Any:
    """transformers, quiet, with torchvision importable."""
    make_torchvision_importable()
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers


def build_oracle(shape: Tiny) -> Any:
    """transformers' model of this shape, random, in float32."""
    transformers = import_transformers()
    config = transformers.Qwen2VLConfig(**hub_config(shape))
    return _initialise(transformers.Qwen2VLForConditionalGeneration(config), shape.seed).eval()


def write_checkpoint(folder: Path, shape: Tiny) -> Path:
    """A model folder as the hub has it, or with the names transformers 4.52-4.57 wrote."""
    build_oracle(shape).save_pretrained(folder, max_shard_size=shape.shard_size)
    if shape.layout == "hub":  # keep the flat config of the hub, not the nested one of transformers
        (folder / "config.json").write_text(json.dumps(hub_config(shape)))
    else:
        _rename_tensors(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(preprocessor_config(shape.geometry))
    )
    return folder


def _rename_tensors(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        tensors = {_nested_name(name): tensor for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text())
        content["weight_map"] = {_nested_name(k): v for k, v in content["weight_map"].items()}
        index.write_text(json.dumps(content))


def _nested_name(name: str) -> str:
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


@dataclass(frozen=True)
class Scene:
    """A prompt: text runs as token ids (lists), pictures and videos as frames (T, H, W, 3) uint8.

    One frame is an image; the model sees it twice. Of an odd video the last frame is repeated.
    """

    items: tuple[list[int] | Tensor, ...]

    @staticmethod
    def grid(frames: Tensor) -> Grid:
        num_frames, height, width, _ = frames.shape
        return GEOMETRY.grid(GEOMETRY.num_steps(num_frames), Size(height, width))

    @staticmethod
    def even(frames: Tensor) -> Tensor:
        return torch.cat([frames, frames[-1:]]) if frames.shape[0] % 2 else frames

    @cached_property
    def positions(self) -> Tensor:
        """(3, S) by the paper's rule, markers counted as text."""
        runs, start = [], 0
        for item in self.items:
            if isinstance(item, list):
                runs.append(text_positions(start, len(item)))
                start += len(item)
            else:
                grid = self.grid(item)
                runs.append(video_positions(start, grid))
                start = position_after_video(start, grid)
        return torch.cat(runs, dim=1)

    @property
    def key(self) -> Hashable:
        """Equal for scenes of the same ids and pixels."""
        return tuple(
            tuple(item) if isinstance(item, list) else (item.shape, item.numpy().tobytes())
            for item in self.items
        )

    @property
    def next_position(self) -> int:
        return int(self.positions.max()) + 1

    def embeddings(self, model: Qwen2VL) -> Tensor:
        """(S, D), by our own tower and table."""
        return torch.cat(
            [
                model.language.embed(torch.tensor(item))
                if isinstance(item, list)
                else model.vision(self.even(item))
                for item in self.items
            ]
        )


@dataclass(frozen=True)
class Reference:
    """One checkpoint on disk, transformers' model of it, and ours read from the same files."""

    shape: Tiny
    folder: Path
    oracle: Any

    @classmethod
    def create(cls, folder: Path, shape: Tiny) -> "Reference":
        return cls(shape, write_checkpoint(folder, shape), build_oracle(shape))

    @cached_property
    @torch.inference_mode(False)  # whichever test asks first, others may want gradients
    def model(self) -> Qwen2VL:
        """Ours, filled part by part from the tensors transformers wrote."""
        names = {_nested_name(part.tensor): part.tensor for _, part in self._parts}
        names |= {part.tensor: part.tensor for _, part in self._parts}
        files = self.folder.glob("*.safetensors")
        tensors = {names[name]: t for file in files for name, t in load_file(file).items()}
        return load(Qwen2VL(self.shape.config), tensors)

    @cached_property
    def packed_model(self) -> Qwen2VL:
        """The same, its layers put in oneDNN's layout, as small as they are."""
        model = load_model(self.folder)
        for half in (model.vision, model.language):
            pack(half, min_elements=0)
        return model

    @property
    def _parts(self) -> list[Any]:
        with torch.device("meta"):
            return list(Qwen2VL(self.shape.config).checkpoint_parts())

    def pixels(self, frames: Tensor) -> dict[str, Tensor]:
        """What transformers' processors make of a picture (T = 1) or a video."""
        transformers, geometry = import_transformers(), self.shape.geometry
        cutting = {
            "patch_size": geometry.patch,
            "merge_size": geometry.merge,
            "temporal_patch_size": geometry.temporal,
        }
        pictures = frames.permute(0, 3, 1, 2)
        if frames.shape[0] == 1:
            image = transformers.Qwen2VLImageProcessor(do_resize=False, **cutting)
            out = image(pictures[0], return_tensors="pt")
            return {"patches": out["pixel_values"], "grid": out["image_grid_thw"]}
        video = transformers.Qwen2VLVideoProcessor(
            do_resize=False, do_sample_frames=False, **cutting
        )
        out = video([pictures], return_tensors="pt")
        return {"patches": out["pixel_values_videos"], "grid": out["video_grid_thw"]}

    @torch.inference_mode()
    def embeddings(self, scene: Scene) -> Tensor:
        """(S, D), by transformers' processors, tower and table."""
        return torch.cat([self._embed(item) for item in scene.items])

    def _embed(self, item: list[int] | Tensor) -> Tensor:
        if isinstance(item, list):
            return self.oracle.get_input_embeddings()(torch.tensor(item))
        pixels = self.pixels(item)
        return self.oracle.model.visual(pixels["patches"], grid_thw=pixels["grid"]).pooler_output

    @torch.inference_mode()
    def logits(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        """transformers' logits (S, V) of token vectors (S, D) at explicit positions (3, S)."""
        inputs = {"inputs_embeds": embeddings[None], "position_ids": positions[:, None]}
        return self.oracle(**inputs, use_cache=False).logits[0]

    @cached_property
    def _continuations(self) -> dict[Hashable, list[int]]:
        return {}

    def greedy(self, scene: Scene, num_tokens: int) -> list[int]:
        """transformers' greedy continuation at the paper's positions, made once for each scene."""
        key = scene.key, num_tokens
        if key not in self._continuations:
            self._continuations[key] = self._continued(scene, num_tokens)
        return list(self._continuations[key])

    @torch.inference_mode()
    def _continued(self, scene: Scene, num_tokens: int) -> list[int]:
        """Without a cache of keys and values."""
        embeddings, positions = self.embeddings(scene), scene.positions
        tokens: list[int] = []
        for index in range(num_tokens):
            tokens.append(int(self.logits(embeddings, positions)[-1].argmax()))
            embeddings = torch.cat([embeddings, self._embed(tokens[-1:])])
            place = text_positions(scene.next_position + index, 1)
            positions = torch.cat([positions, place], dim=1)
        return tokens


def random_frames(num_frames: int, rows: int, columns: int, *, seed: int = 0) -> Tensor:
    """(T, H, W, 3) uint8 noise; rows, columns: merged tokens."""
    generator = torch.Generator().manual_seed(seed)
    side = GEOMETRY.factor
    shape = (num_frames, rows * side, columns * side, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def random_ids(num_tokens: int, *, seed: int = 0, below: int = 290) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, below, (num_tokens,), generator=generator).tolist()


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value."""
    return float((got - expected).abs().max() / expected.abs().max())


def describe(shape: Tiny) -> str:
    """A test id: what differs from the default."""
    default = asdict(Tiny())
    return ",".join(f"{k}={v}" for k, v in asdict(shape).items() if v != default[k])
