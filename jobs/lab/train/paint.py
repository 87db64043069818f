"""A second renderer, written apart from the first: Pillow's polygons, drawn large and shrunk.

vidray-demo never saw its pictures in training, so scores on them show what holds off the drawing
it learnt from.
"""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from jobs.demo.world import COLOURS, Background, Scene

LARGER = 2


def paint(scene: Scene, times_s: list[float], *, height: int, width: int) -> Iterator[np.ndarray]:
    """The scene's frames at these times, (H, W, 3) uint8."""
    canvas = _canvas(scene.background, width=width * LARGER, height=height * LARGER)
    for time_s in times_s:
        picture = canvas.copy()
        draw = ImageDraw.Draw(picture)
        for shape in scene.shapes:
            if shape.is_visible(time_s):
                x0, y0, x1, y1 = scene.unit_box(shape, time_s)
                box = (
                    x0 * picture.width,
                    y0 * picture.height,
                    x1 * picture.width,
                    y1 * picture.height,
                )
                _draw(draw, shape.kind, box, COLOURS[shape.colour])
        yield np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))


def _draw(
    draw: ImageDraw.ImageDraw,
    kind: str,
    box: tuple[float, float, float, float],
    colour: tuple[int, int, int],
) -> None:
    x0, y0, x1, y1 = box
    if kind == "circle":
        draw.ellipse(box, fill=colour)
    elif kind == "square":
        draw.rectangle(box, fill=colour)
    elif kind == "triangle":
        draw.polygon([((x0 + x1) / 2, y0), (x1, y1), (x0, y1)], fill=colour)
    else:
        draw.polygon(_star(box), fill=colour)


def _star(box: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    """Five points, the first on top, stretched to fill the box."""
    x0, y0, x1, y1 = box
    points = []
    for index in range(10):
        reach = 0.42 if index % 2 else 1.0
        turn = math.pi * index / 5
        points.append((reach * math.sin(turn), -reach * math.cos(turn)))
    lowest, highest = math.cos(math.pi / 5), math.sin(2 * math.pi / 5)
    return [
        (
            (x0 + x1) / 2 + x / highest * (x1 - x0) / 2,
            y0 + (y + 1) / (1 + lowest) * (y1 - y0),
        )
        for x, y in points
    ]


def _canvas(background: Background, *, width: int, height: int) -> Image.Image:
    """Plain, a left-to-right fade, coarse speckle or diagonal stripes."""
    first, second = (tuple(map(round, c)) for c in (background.first, background.second))
    plain = Image.new("RGB", (width, height), first)
    other = Image.new("RGB", (width, height), second)
    if background.kind == "gradient":
        fade = Image.linear_gradient("L").rotate(90).resize((width, height))
        return Image.composite(other, plain, fade)
    if background.kind == "noise":
        rng = np.random.default_rng(background.seed)
        size = (height // (2 * LARGER), width // (2 * LARGER))
        speckle = Image.fromarray(rng.integers(0, 90, size, dtype=np.uint8)).resize((width, height))
        return Image.composite(other, plain, speckle)
    if background.kind == "texture":
        draw = ImageDraw.Draw(plain)
        gap = max(6, width // 18)
        shade = tuple(min(level + 22, 165) for level in first)
        for x in range(-height, width, 2 * gap):
            draw.line([(x, height), (x + height, 0)], fill=shade, width=gap)
    return plain
