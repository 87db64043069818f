"""Draws a scene into frames with numpy alone, fast enough to keep training fed."""

from functools import cache

import numpy as np
from numpy.random import Generator

from jobs.demo.world import COLOURS, Background, Scene, Shape

FIELD = 96  # cells along one side of a shape's distance field
MARGIN = 0.12  # the field reaches this far outside the unit box


def render(
    scene: Scene, times_s: list[float], *, height: int, width: int, colour_jitter: int = 0
) -> np.ndarray:
    """Draw the scene at each time. Returns (T, H, W, 3) uint8.

    colour_jitter: up to this many levels are added to each shape's channels, fixed by the scene.
    """
    background = draw_background(scene.background, height=height, width=width)
    frames = np.repeat(background[None], len(times_s), axis=0)
    jitter = np.random.default_rng(scene.background.seed)
    for shape in scene.shapes:
        paint = np.array(COLOURS[shape.colour], dtype=np.float32)
        paint += jitter.uniform(-colour_jitter, colour_jitter, size=3).astype(np.float32)
        for frame, time_s in zip(frames, times_s, strict=True):
            if shape.is_visible(time_s):
                draw_shape(frame, shape, time_s, paint, scale=(width, height), scene=scene)
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8)


def draw_shape(
    frame: np.ndarray,
    shape: Shape,
    time_s: float,
    paint: np.ndarray,
    *,
    scale: tuple[int, int],
    scene: Scene,
) -> None:
    """Blend one shape into a float frame (H, W, 3) in place, with anti-aliased edges."""
    width, height = scale
    x0, y0, x1, y1 = scene.unit_box(shape, time_s)
    columns, u = _cells(x0 * width, x1 * width, width)
    rows, v = _cells(y0 * height, y1 * height, height)
    if not len(u) or not len(v):
        return
    side_px = (x1 - x0) * width
    coverage = np.clip(0.5 - _bilinear(distance_field(shape.kind), v, u) * side_px, 0, 1)
    region = frame[rows, columns]
    region += coverage[..., None] * (paint - region)


def _cells(low: float, high: float, limit: int) -> tuple[slice, np.ndarray]:
    """The pixels from low to high and one more, and their centres in the unit box."""
    start, stop = max(int(np.floor(low)) - 1, 0), min(int(np.ceil(high)) + 1, limit)
    centres = np.arange(start, max(stop, start)) + 0.5
    return slice(start, stop), (centres - low) / (high - low)


def _bilinear(field: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    rows, columns = (
        np.clip((axis + MARGIN) / (1 + 2 * MARGIN) * (FIELD - 1), 0, FIELD - 1.001)
        for axis in (v, u)
    )
    i, j = rows.astype(int), columns.astype(int)
    a, b = (rows - i)[:, None], (columns - j)[None, :]
    top = field[np.ix_(i, j)] * (1 - b) + field[np.ix_(i, j + 1)] * b
    bottom = field[np.ix_(i + 1, j)] * (1 - b) + field[np.ix_(i + 1, j + 1)] * b
    field_at: np.ndarray = top * (1 - a) + bottom * a
    return field_at


@cache
def distance_field(kind: str) -> np.ndarray:
    """Signed distance to the outline in box sides, negative inside: (FIELD, FIELD), row is y."""
    axis = np.linspace(-MARGIN, 1 + MARGIN, FIELD)
    x, y = np.meshgrid(axis, axis)
    if kind == "circle":
        return np.hypot(x - 0.5, y - 0.5) - 0.5
    return polygon_distance(x, y, outline(kind))


@cache
def outline(kind: str) -> np.ndarray:
    """Corners of a polygon kind that just fill the unit box: (corners, 2) as x, y."""
    if kind == "square":
        return np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float)
    if kind == "triangle":
        return np.array([(0.5, 0), (1, 1), (0, 1)], dtype=float)
    turns = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    corners = np.stack([radius * np.sin(turns), -radius * np.cos(turns)], axis=1)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return np.asarray((corners - low) / (high - low))


def polygon_distance(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
        along = np.clip(along, 0, 1)
        nearest = np.minimum(
            nearest, np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay))
        )
        if ay != by:
            crosses = (ay > y) != (by > y)
            inside ^= crosses & (x < ax + (y - ay) / (by - ay) * (bx - ax))
    return np.where(inside, -nearest, nearest)


def draw_background(background: Background, *, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32 in 0..255."""
    rng = np.random.default_rng(background.seed)
    first, second = (
        np.asarray(colour, np.float32) for colour in (background.first, background.second)
    )
    if background.kind == "plain":
        return np.broadcast_to(first, (height, width, 3)).copy()
    if background.kind == "noise":
        return first + rng.uniform(6, 30) * _grain(rng, height, width)[..., None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    turn = rng.uniform(0, 2 * np.pi)
    slope = np.float32(np.cos(turn)) * x + np.float32(np.sin(turn)) * y
    if background.kind == "gradient":
        mix = (slope + 1.4143) / 2.8285
        return first + mix[..., None] * (second - first)
    waves = np.sin(slope * np.float32(rng.uniform(8, 40)))
    if rng.random() < 0.5:  # weave instead of stripes
        across = np.float32(-np.sin(turn)) * x + np.float32(np.cos(turn)) * y
        waves = waves * np.sin(across * np.float32(rng.uniform(8, 40)))
    return first + np.float32(rng.uniform(8, 30)) * waves[..., None]


def _grain(rng: Generator, height: int, width: int) -> np.ndarray:
    """Static grain of unit strength, (H, W) float32; a grain is one to four pixels wide."""
    grain = int(rng.integers(1, 5))
    coarse = rng.standard_normal((-(-height // grain), -(-width // grain)), dtype=np.float32)
    fine = np.repeat(np.repeat(coarse, grain, axis=0), grain, axis=1)
    return fine[:height, :width]
