"""What a codec and a resize do to drawn frames, at numpy's speed and without either."""

from functools import cache

import numpy as np
from numpy.random import Generator

BLOCK = 8
TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], dtype=np.float32
)
FROM_YCC = np.linalg.inv(TO_YCC).astype(np.float32)


def degrade(frames: np.ndarray, rng: Generator) -> np.ndarray:
    """Blur, block-quantise, shift and add noise, each sometimes. (T, H, W, 3) uint8 in and out."""
    x = frames.astype(np.float32)
    if rng.random() < 0.5:
        x = blur(x, strength=float(rng.uniform(0.03, 0.25)))
    if rng.random() < 0.25:
        x = quantise(x, step=float(rng.uniform(2, 14)))
    if rng.random() < 0.4:
        x = (x - 110) * np.float32(rng.uniform(0.9, 1.08)) + np.float32(110 + rng.uniform(-8, 8))
    if rng.random() < 0.4:
        noise = rng.standard_normal(x.shape[1:], dtype=np.float32) * np.float32(rng.uniform(1, 5))
        x = x + noise
        x[1::2] -= 2 * noise  # not the same noise in both frames of a pair
    degraded: np.ndarray = np.clip(x + 0.5, 0, 255).astype(np.uint8)
    return degraded


def blur(x: np.ndarray, *, strength: float) -> np.ndarray:
    """A three-tap blur along both sides; strength is the weight of each neighbour."""
    for axis in (1, 2):
        size = x.shape[axis]
        before = np.take(x, np.maximum(np.arange(size) - 1, 0), axis=axis)
        after = np.take(x, np.minimum(np.arange(size) + 1, size - 1), axis=axis)
        x = x + strength * (before + after - 2 * x)
    return x


def quantise(x: np.ndarray, *, step: float) -> np.ndarray:
    """Round 8x8 cosine coefficients, coarser where fine; colour is halved, too."""
    num_frames, height, width, _ = x.shape
    pads = ((0, 0), (0, -height % (2 * BLOCK)), (0, -width % (2 * BLOCK)), (0, 0))
    ycc = np.pad(x, pads, mode="edge") @ TO_YCC.T
    luma = round_blocks(ycc[..., 0], step=step)
    halved = (ycc[:, ::2, ::2] + ycc[:, 1::2, ::2] + ycc[:, ::2, 1::2] + ycc[:, 1::2, 1::2]) / 4
    colour = [round_blocks(halved[..., i], step=1.5 * step) for i in (1, 2)]
    full = [np.repeat(np.repeat(plane, 2, axis=1), 2, axis=2) for plane in colour]
    rgb = np.stack([luma, *full], axis=-1) @ FROM_YCC.T
    return rgb[:, :height, :width]


def round_blocks(plane: np.ndarray, *, step: float) -> np.ndarray:
    """(T, H, W) float, H and W multiples of 8."""
    num_frames, height, width = plane.shape
    basis, grid = cosines(), np.arange(BLOCK)
    steps = (step * (0.5 + (grid[:, None] + grid[None, :]) / 4)).astype(np.float32)
    blocks = plane.reshape(num_frames, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks = blocks.swapaxes(2, 3)  # (T, rows, columns, 8, 8)
    freq = (blocks @ basis.T).swapaxes(3, 4) @ basis.T
    rounded = np.round(freq / steps) * steps
    back: np.ndarray = (rounded @ basis).swapaxes(3, 4) @ basis
    return back.swapaxes(2, 3).reshape(num_frames, height, width)


@cache
def cosines() -> np.ndarray:
    """The orthonormal 8-point cosine transform, (8, 8) float32."""
    k, n = np.arange(BLOCK)[:, None], np.arange(BLOCK)[None, :]
    basis: np.ndarray = np.cos(np.pi * (2 * n + 1) * k / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)
