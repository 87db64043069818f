"""The world vidray-demo knows: scenes of moving coloured shapes, drawn at random from a seed.

Lengths are in short sides of the picture, so a scene means the same at every resolution; x runs to
the right, y runs down, times are seconds from the first frame.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.random import Generator

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (45, 80, 220),
    "yellow": (240, 220, 50),
    "white": (245, 245, 245),
    "purple": (150, 50, 180),
    "orange": (245, 140, 30),
    "cyan": (50, 210, 220),
}
KINDS = ("circle", "square", "triangle", "star")
BACKGROUNDS = ("plain", "gradient", "noise", "texture")
DIRECTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}

MIN_SIZE, MAX_SIZE = 0.12, 0.40
MIN_SPEED, MAX_SPEED = (
    0.06,
    0.50,
)  # short sides a second: at 2 fps, 3 % or more a frame
MIN_SEEN_S = 0.9  # a shape with an event is there, and is away, for at least this long
PLANNED_FPS = 2.0
MIN_GAP = 0.02  # between the boxes of two shapes, at all times
MIN_ORDER_GAP = 0.08  # between the x of two shapes where each is first seen
MIN_EVENT_GAP_S = 1.0  # between two appearances, or two disappearances
TRIES = 40

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One coloured shape; (x, y) is its centre at time 0, seen or not, and size its box's side."""

    colour: str
    kind: str
    size: float
    x: float
    y: float
    direction: str | None = None  # None: stays still
    speed: float = 0.0  # short sides a second
    appears_s: float | None = None
    disappears_s: float | None = None

    @property
    def name(self) -> str:
        return f"the {self.colour} {self.kind}"

    @property
    def first_seen_s(self) -> float:
        return self.appears_s or 0.0

    def is_visible(self, time_s: float) -> bool:
        gone_s = float("inf") if self.disappears_s is None else self.disappears_s
        return self.first_seen_s <= time_s < gone_s

    def centre(self, time_s: float) -> tuple[float, float]:
        step_x, step_y = DIRECTIONS[self.direction] if self.direction else (0, 0)
        return self.x + step_x * self.speed * time_s, self.y + step_y * self.speed * time_s

    def box(self, time_s: float) -> Box:
        """(x0, y0, x1, y1) in short sides, whether it is visible or not."""
        x, y = self.centre(time_s)
        half = self.size / 2
        return x - half, y - half, x + half, y + half


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """What is behind the shapes: one of BACKGROUNDS between two dull colours."""

    kind: str
    first: tuple[float, float, float]
    second: tuple[float, float, float]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A clip's content: aspect is width over height."""

    aspect: float
    duration_s: float
    shapes: tuple[Shape, ...]
    background: Background

    @property
    def extent(self) -> tuple[float, float]:
        """(width, height) in short sides; the smaller is 1."""
        return max(self.aspect, 1.0), max(1 / self.aspect, 1.0)

    def find(self, colour: str | None = None, kind: str | None = None) -> list[Shape]:
        return [s for s in self.shapes if colour in (None, s.colour) and kind in (None, s.kind)]

    def in_order(self) -> list[Shape]:
        """Left to right by where each shape is first seen."""
        return sorted(self.shapes, key=lambda shape: shape.centre(shape.first_seen_s)[0])

    def unit_box(self, shape: Shape, time_s: float) -> Box:
        """The shape's box as fractions of the picture's width and height."""
        width, height = self.extent
        x0, y0, x1, y1 = shape.box(time_s)
        return x0 / width, y0 / height, x1 / width, y1 / height


def random_scene(
    rng: Generator,
    *,
    aspect: float | None = None,
    duration_s: float | None = None,
    is_still: bool = False,
) -> Scene:
    """Draw a scene: equal generator states, equal scenes. Stills have no motion, no events."""
    aspect = float(np.exp(rng.uniform(-np.log(2), np.log(2)))) if aspect is None else aspect
    duration_s = float(rng.uniform(2, 10)) if duration_s is None else duration_s
    empty = Scene(aspect=aspect, duration_s=duration_s, shapes=(), background=_background(rng))
    num_shapes = int(rng.choice(4, p=(0.06, 0.26, 0.34, 0.34)))
    names = [*product(COLOURS, KINDS)]
    shapes: list[Shape] = []
    for name in rng.permutation(len(names))[:num_shapes]:
        colour, kind = names[name]
        for _ in range(TRIES):
            shape = _shape(rng, colour, kind, empty, is_still=is_still)
            if shape is not None and all(_fits(shape, other, duration_s) for other in shapes):
                shapes.append(shape)
                break
    rng.shuffle(shapes)
    return Scene(
        aspect=aspect, duration_s=duration_s, shapes=tuple(shapes), background=empty.background
    )


def _background(rng: Generator) -> Background:
    """Dull and not bright, so that each of the eight colours stands out."""
    colours = rng.uniform(10, 150, size=(2, 1)) + rng.uniform(-12, 12, size=(2, 3))
    first, second = (tuple(float(v) for v in np.clip(colour, 0, 165)) for colour in colours)
    return Background(
        kind=str(rng.choice(BACKGROUNDS)),
        first=(first[0], first[1], first[2]),
        second=(second[0], second[1], second[2]),
        seed=int(rng.integers(2**31)),
    )


def _shape(rng: Generator, colour: str, kind: str, scene: Scene, *, is_still: bool) -> Shape | None:
    """A shape whose box stays inside the picture while it is seen, or None when it would not."""
    duration_s = scene.duration_s
    size = float(rng.uniform(MIN_SIZE, MAX_SIZE))
    appears_s, disappears_s = (None, None) if is_still else _event(rng, duration_s)
    seen_s = (disappears_s or duration_s) - (appears_s or 0.0)
    direction = None if is_still or rng.random() < 0.25 else str(rng.choice([*DIRECTIONS]))
    speed = 0.0
    step = np.zeros(2)
    room = np.array(scene.extent) - size
    if direction:
        step = np.array(DIRECTIONS[direction], dtype=float)
        fastest = min(MAX_SPEED, float(np.abs(step) @ room) / seen_s)
        if fastest < MIN_SPEED:
            return None
        speed = float(rng.uniform(MIN_SPEED, fastest))
    travel = step * speed * seen_s
    low = size / 2 + np.maximum(-travel, 0)
    high = size / 2 + room - np.maximum(travel, 0)
    centre = rng.uniform(low, high) - step * speed * (appears_s or 0.0)
    return Shape(
        colour=colour,
        kind=kind,
        size=size,
        x=float(centre[0]),
        y=float(centre[1]),
        direction=direction,
        speed=speed,
        appears_s=appears_s,
        disappears_s=disappears_s,
    )


def _event(rng: Generator, duration_s: float) -> tuple[float | None, float | None]:
    """(appears_s, disappears_s), at most one of them set.

    What appears is in two of the frames that a plan samples: in one alone nothing moves.
    """
    if rng.random() < 0.55:
        return None, None
    appears = rng.random() < 0.5
    num_frames = 2 * round(duration_s * PLANNED_FPS / 2)
    two_frames_s = 2 * duration_s / num_frames
    least_s = max(MIN_SEEN_S, two_frames_s) if appears else MIN_SEEN_S
    time_s = float(rng.uniform(MIN_SEEN_S, max(duration_s - least_s, MIN_SEEN_S)))
    return (time_s, None) if appears else (None, time_s)


def _fits(shape: Shape, other: Shape, duration_s: float) -> bool:
    """Whether both can be in one clip: never touching, and with a clear order in space and time."""
    first_x = shape.centre(shape.first_seen_s)[0]
    other_x = other.centre(other.first_seen_s)[0]
    if abs(first_x - other_x) < MIN_ORDER_GAP:
        return False
    events = ((shape.appears_s, other.appears_s), (shape.disappears_s, other.disappears_s))
    if any(a is not None and b is not None and abs(a - b) < MIN_EVENT_GAP_S for a, b in events):
        return False
    if (
        shape.appears_s is None
        and other.appears_s is None
        and abs(shape.x - other.x) < MIN_ORDER_GAP
    ):
        return False
    return not _touch(shape, other, duration_s)


def _touch(shape: Shape, other: Shape, duration_s: float) -> bool:
    start_s = max(shape.first_seen_s, other.first_seen_s)
    stop_s = min(shape.disappears_s or duration_s, other.disappears_s or duration_s)
    if stop_s <= start_s:
        return False
    reach = (shape.size + other.size) / 2 + MIN_GAP
    # Both distances are linear in time, so a fine grid of times finds a meeting.
    times = np.linspace(start_s, stop_s, 1 + int((stop_s - start_s) / 0.02 + 1))
    x, y = (
        np.subtract(a, b) for a, b in zip(_path(shape, times), _path(other, times), strict=True)
    )
    return bool(np.any((np.abs(x) < reach) & (np.abs(y) < reach)))


def _path(shape: Shape, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step_x, step_y = DIRECTIONS[shape.direction] if shape.direction else (0, 0)
    return shape.x + step_x * shape.speed * times, shape.y + step_y * shape.speed * times
