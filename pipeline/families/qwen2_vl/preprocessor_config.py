"""How a checkpoint wants its pixels: preprocessor_config.json and its newer siblings.

The hub has preprocessor_config.json; transformers 5 writes video_preprocessor_config.json beside
it, or both inside processor_config.json. One tower serves images and videos, so all must agree.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import PositiveFloat

from pipeline.errors import CheckpointError
from pipeline.model.folder import HubFields, parse_fields, read_optional_json, without_nulls
from pipeline.settings import shown
from pipeline.types import Geometry

IMAGE_FILE = "preprocessor_config.json"
VIDEO_FILE = "video_preprocessor_config.json"
BOTH_FILE = "processor_config.json"
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training pictures; Qwen2-VL keeps them
STD = (0.26862954, 0.26130258, 0.27577711)


# (least, most) pixels of one picture where a file is silent: the classes' own, since 4.45
IMAGE_PIXELS = (56 * 56, 1280 * 28 * 28)
VIDEO_PIXELS = (128 * 28 * 28, 768 * 28 * 28)


class _Size(HubFields):
    """Named for edges since transformers 4.46, but both are pixel counts."""

    shortest_edge: PositiveFloat | None = None
    longest_edge: PositiveFloat | None = None
    min_pixels: PositiveFloat | None = None
    max_pixels: PositiveFloat | None = None


class _PreprocessorFields(HubFields):
    image_mean: float | list[float] = list(MEAN)
    image_std: PositiveFloat | list[PositiveFloat] = list(STD)
    patch_size: float | None = None  # tools that know one kind of number write 14.0
    temporal_patch_size: float | None = None
    merge_size: float | None = None
    do_rescale: bool = True
    do_normalize: bool = True
    rescale_factor: float = 1 / 255
    min_pixels: PositiveFloat | None = None
    max_pixels: PositiveFloat | None = None
    size: _Size = _Size()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Pixels enter as (x / 255 - mean) / std, per channel; pixel limits are of one image."""

    image_mean: tuple[float, float, float] = MEAN
    image_std: tuple[float, float, float] = STD
    min_pixels: int | None = None
    max_pixels: int | None = None


def load_preprocessing(path: Path, *, geometry: Geometry) -> Preprocessing:
    """The folder's preprocessing; Qwen2-VL's own where the folder is silent.

    geometry: what config.json says, which no other file may contradict
    """
    found = [
        (name, _parse(name, content, geometry, pixels)) for name, content, pixels in _sources(path)
    ]
    if not found:
        return Preprocessing()
    first_name, first = found[0]
    for name, other in found[1:]:
        if (other.image_mean, other.image_std) != (first.image_mean, first.image_std):
            raise CheckpointError(name, f"image_mean or image_std differ from {first_name}")
    if (first.min_pixels or 0) > (first.max_pixels or math.inf):
        limits = f"min_pixels {first.min_pixels} is above max_pixels {first.max_pixels}"
        raise CheckpointError(first_name, limits)
    return first


def _sources(path: Path) -> list[tuple[str, Any, tuple[int, int]]]:
    """(file, content, pixels where silent) of every description present, that of images first."""
    both = read_optional_json(path, BOTH_FILE)
    sources = [
        (IMAGE_FILE, read_optional_json(path, IMAGE_FILE), IMAGE_PIXELS),
        (BOTH_FILE, both.get("image_processor"), IMAGE_PIXELS),
        (VIDEO_FILE, read_optional_json(path, VIDEO_FILE), VIDEO_PIXELS),
        (BOTH_FILE, both.get("video_processor"), VIDEO_PIXELS),
    ]
    return [source for source in sources if source[1]]


def _parse(name: str, content: Any, geometry: Geometry, pixels: tuple[int, int]) -> Preprocessing:
    fields = parse_fields(_PreprocessorFields, name, without_nulls(content))
    expected = {
        "patch_size": geometry.patch,
        "temporal_patch_size": geometry.temporal,
        "merge_size": geometry.merge,
        "do_rescale": True,
        "do_normalize": True,
    }
    for field, value in expected.items():
        if getattr(fields, field) not in (None, value):
            raise CheckpointError(
                name, f"{field} must be {shown(value)}, got {shown(getattr(fields, field))}"
            )
    if abs(fields.rescale_factor * 255 - 1) > 1e-6:
        raise CheckpointError(name, f"rescale_factor must be 1/255, got {fields.rescale_factor}")
    min_pixels, max_pixels = _limits(fields, *pixels)
    return Preprocessing(
        image_mean=_per_channel(name, "image_mean", fields.image_mean),
        image_std=_per_channel(name, "image_std", fields.image_std),
        min_pixels=min_pixels,
        max_pixels=max_pixels,
    )


def _limits(fields: _PreprocessorFields, usual_least: int, usual_most: int) -> tuple[int, int]:
    """(least, most) pixels of one picture; a least that nobody wrote gives way to the most."""
    size = fields.size
    least = fields.min_pixels or size.shortest_edge or size.min_pixels
    most = int(fields.max_pixels or size.longest_edge or size.max_pixels or usual_most)
    return min(usual_least, most) if least is None else int(least), most


def _per_channel(name: str, field: str, values: float | list[float]) -> tuple[float, float, float]:
    if isinstance(values, float):
        return values, values, values
    if len(values) != 3:
        raise CheckpointError(name, f"{field} needs 3 values, got {len(values)}")
    red, green, blue = values
    return red, green, blue
