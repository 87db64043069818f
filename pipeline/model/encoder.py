"""Frames to token chunks: the vision tower over chunks of any videos, batched by size."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.families.qwen2_vl.vision import VisionTower
from pipeline.types import FrameChunk, TokenChunk


class VisionEncoder:
    """Encodes chunks; a chunk keeps its place in its plan and doesn't know its neighbours."""

    def __init__(self, tower: VisionTower) -> None:
        self._tower = tower
        self._device = tower.merger.ln_q.weight.device

    @property
    def num_weights(self) -> int:
        """Of the tower, as its matmuls read them."""
        return self._tower.num_weights

    @torch.inference_mode()
    def encode(self, chunks: Sequence[FrameChunk]) -> list[TokenChunk]:
        """Token chunks in the order given; chunks of equal shape share one pass."""
        by_shape: dict[torch.Size, list[int]] = {}
        for place, chunk in enumerate(chunks):
            by_shape.setdefault(chunk.frames.shape, []).append(place)
        tokens: dict[int, Tensor] = {}
        for places in by_shape.values():
            batch = torch.stack([chunks[place].frames for place in places])
            tokens.update(zip(places, self._tower(self._on_device(batch)), strict=True))
        return [
            TokenChunk(
                plan_hash=chunk.plan_hash,
                window_index=chunk.window_index,
                index=chunk.index,
                tokens=tokens[place],
            )
            for place, chunk in enumerate(chunks)
        ]

    def _on_device(self, frames: Tensor) -> Tensor:
        """A GPU fetches them by itself, while this process goes on to say what comes next."""
        if self._device.type == "cuda":
            frames = frames.pin_memory()
        return frames.to(self._device, non_blocking=True)
