"""How every published Qwen2-VL cuts a video; a checkpoint's config.json may say otherwise."""

from pipeline.types import Geometry

GEOMETRY = Geometry(patch=14, merge=2, temporal=2)
