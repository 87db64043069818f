"""Chunks as they travel: the same values with their tensors as arrays.

Ray maps arrays from shared memory without a copy; tensors it would copy through a pickle.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from pipeline.types import FrameChunk, Geometry, TokenChunk


@dataclass(frozen=True, slots=True)
class FrameParcel:
    """A FrameChunk on its way. frames: (T, H, W, 3) uint8."""

    plan_hash: str
    window_index: int
    index: int
    geometry: Geometry
    frames: NDArray[np.uint8]
    is_damaged: tuple[bool, ...]

    @classmethod
    def pack(cls, chunk: FrameChunk) -> "FrameParcel":
        return cls(
            chunk.plan_hash,
            chunk.window_index,
            chunk.index,
            chunk.geometry,
            chunk.frames.numpy(),
            chunk.is_damaged,
        )

    def unpack(self) -> FrameChunk:
        return FrameChunk(
            plan_hash=self.plan_hash,
            window_index=self.window_index,
            index=self.index,
            geometry=self.geometry,
            frames=_tensor(self.frames),
            is_damaged=self.is_damaged,
        )


@dataclass(frozen=True, slots=True)
class TokenParcel:
    """A TokenChunk on its way. words: the tokens' bits, since arrays have no bfloat16."""

    plan_hash: str
    window_index: int
    index: int
    words: NDArray[np.int32] | NDArray[np.int16]
    dtype: torch.dtype

    @classmethod
    def pack(cls, chunk: TokenChunk) -> "TokenParcel":
        tokens = chunk.tokens.cpu().contiguous()
        bits = torch.int32 if tokens.element_size() == 4 else torch.int16
        return cls(
            chunk.plan_hash,
            chunk.window_index,
            chunk.index,
            tokens.view(bits).numpy(),
            tokens.dtype,
        )

    @property
    def num_tokens(self) -> int:
        return len(self.words)

    @property
    def num_bytes(self) -> int:
        return self.words.nbytes

    def unpack(self) -> TokenChunk:
        return TokenChunk(
            plan_hash=self.plan_hash,
            window_index=self.window_index,
            index=self.index,
            tokens=_tensor(self.words).view(self.dtype),
        )


def chunks_travel_as_parcels() -> None:
    """Have what this process sends carry token chunks as arrays, wherever in it they are."""
    ray.util.register_serializer(
        TokenChunk, serializer=TokenParcel.pack, deserializer=TokenParcel.unpack
    )


def _tensor(values: NDArray[np.generic]) -> torch.Tensor:
    with warnings.catch_warnings():
        # The array lies in read-only shared memory; nothing writes to chunks.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)
