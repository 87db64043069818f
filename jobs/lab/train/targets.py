"""What each merged vision token should know: the auxiliary targets the vision tower learns from.

As in one-stage detectors (FCOS, arXiv 1904.01355), a token that a shape covers says which colour
and kind it is, which way it moves, and how far its box's edges are from the token's own centre.
"""

from dataclasses import dataclass

import numpy as np

from jobs.demo.world import COLOURS, DIRECTIONS, KINDS, Scene, Shape

IGNORE = -100
COLOUR_INDEX = {name: i for i, name in enumerate(COLOURS)}
KIND_INDEX = {name: i for i, name in enumerate(KINDS)}
MOTION_INDEX = {name: i for i, name in enumerate([None, *DIRECTIONS])}
CELL = 28


@dataclass(slots=True)
class TokenTargets:
    """Per merged token of one temporal patch; leading axes may be stacked."""

    is_shape: np.ndarray  # (M) float32: a shape covers this token
    is_centre: np.ndarray  # (M) float32: ... and its centre lies here
    colour: np.ndarray  # (M) int64, IGNORE where no shape is
    kind: np.ndarray
    motion: np.ndarray
    seen: np.ndarray  # (M, 2) float32: visible in the first, in the second frame
    boxes: np.ndarray  # (M, 2, 4) float32: left, top, right, bottom, in tokens from its centre

    @staticmethod
    def join(items: list["TokenTargets"]) -> "TokenTargets":
        """Temporal patches one after another along the token axis."""
        names = TokenTargets.__slots__
        return TokenTargets(
            **{n: np.concatenate([getattr(item, n) for item in items]) for n in names}
        )

    @staticmethod
    def stack(items: list["TokenTargets"]) -> "TokenTargets":
        names = TokenTargets.__slots__
        return TokenTargets(**{n: np.stack([getattr(item, n) for item in items]) for n in names})


def token_targets(
    scene: Scene, times_s: tuple[float, float], *, rows: int, columns: int
) -> TokenTargets:
    """Targets of one temporal patch whose two frames show these times."""
    num = rows * columns
    target = TokenTargets(
        is_shape=np.zeros(num, np.float32),
        is_centre=np.zeros(num, np.float32),
        colour=np.full(num, IGNORE),
        kind=np.full(num, IGNORE),
        motion=np.full(num, IGNORE),
        seen=np.zeros((num, 2), np.float32),
        boxes=np.zeros((num, 2, 4), np.float32),
    )
    best = np.zeros(num)
    for shape in scene.shapes:
        _write(target, best, scene, shape, times_s, rows=rows, columns=columns)
    return target


def _write(
    target: TokenTargets,
    best: np.ndarray,
    scene: Scene,
    shape: Shape,
    times_s: tuple[float, float],
    *,
    rows: int,
    columns: int,
) -> None:
    """Enter one shape wherever it covers more of a token than those before it."""
    seen = [shape.is_visible(time_s) for time_s in times_s]
    if not any(seen):
        return
    scale = np.array([columns, rows, columns, rows], dtype=np.float32)
    boxes = np.array([scene.unit_box(shape, time_s) for time_s in times_s], np.float32) * scale
    x0, y0, x1, y1 = boxes[seen].mean(axis=0)
    i, j = np.arange(rows), np.arange(columns)
    over_x = np.clip(np.minimum(x1, j + 1) - np.maximum(x0, j), 0, None)
    over_y = np.clip(np.minimum(y1, i + 1) - np.maximum(y0, i), 0, None)
    cover = (over_y[:, None] * over_x[None, :]).ravel() / min(1.0, (x1 - x0) * (y1 - y0))
    wins = (cover > 0.15) & (cover > best)
    best[wins] = cover[wins]
    target.is_shape[wins] = 1
    target.is_centre[wins] = 0
    centre = int(np.clip((y0 + y1) / 2, 0, rows - 1e-3)) * columns
    centre += int(np.clip((x0 + x1) / 2, 0, columns - 1e-3))
    if wins[centre]:
        target.is_centre[centre] = 1
    target.colour[wins] = COLOUR_INDEX[shape.colour]
    target.kind[wins] = KIND_INDEX[shape.kind]
    target.motion[wins] = MOTION_INDEX[shape.direction] if all(seen) else IGNORE
    if times_s[0] == times_s[1]:
        target.motion[wins] = 0
    target.seen[wins] = seen
    own = np.stack(np.meshgrid(j + 0.5, i + 0.5), axis=-1).reshape(-1, 2)
    own = np.concatenate([own, own], axis=1)[:, None]  # (M, 1, 4)
    target.boxes[wins] = (boxes[None] - own)[wins]
