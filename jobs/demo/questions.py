"""What is said and asked about a scene, word for word: the whole language of vidray-demo."""

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from jobs.demo.world import COLOURS, KINDS, Scene, Shape
from pipeline.families.qwen2_vl.boxes import grounding_question
from pipeline.tasks.tasks import CAPTION_IMAGE, CAPTION_VIDEO

NOT_THERE = "not there"
NOTHING = "nothing"
STILL = "it stays still"
ABSENT_SHARE = 0.2  # of the questions that name a shape
STEPS = 1000
GRAIN = 10  # boxes are written in steps of this many thousandths


@dataclass(frozen=True, slots=True)
class QuestionTruth:
    """A question, the one right answer, and the kind it is scored under."""

    kind: str
    text: str
    answer: str


def caption(scene: Scene) -> str:
    """One sentence per shape, left to right by where each is first seen."""
    return " ".join(_sentence(shape) for shape in scene.in_order()) or "Nothing is there."


def _sentence(shape: Shape) -> str:
    manner = f"moves {shape.direction}" if shape.direction else "stays still"
    event = " and appears" if shape.appears_s else " and disappears" if shape.disappears_s else ""
    return f"A {shape.colour} {shape.kind} {manner}{event}."


def caption_question(scene: Scene, *, is_still: bool) -> QuestionTruth:
    return QuestionTruth("caption", CAPTION_IMAGE if is_still else CAPTION_VIDEO, caption(scene))


def random_question(scene: Scene, rng: Generator) -> QuestionTruth | None:
    """A question of a random kind; None when this scene has no clear answer to that kind."""
    kinds = tuple(ASKING)
    kind = kinds[int(rng.integers(len(kinds)))]
    pair = ASKING[kind](scene, rng)
    return QuestionTruth(kind, *pair) if pair else None


def find_question(scene: Scene, time_s: float, rng: Generator) -> QuestionTruth:
    """Where a shape is in the frame shown at time_s."""
    visible = [shape for shape in scene.shapes if shape.is_visible(time_s)]
    if visible and rng.random() > ABSENT_SHARE:
        shape = visible[int(rng.integers(len(visible)))]
        return QuestionTruth("find", grounding_question(shape.name), box_text(scene, shape, time_s))
    colour, kind = _absent(scene, rng, visible)
    return QuestionTruth("absent", grounding_question(f"the {colour} {kind}"), NOT_THERE)


def absent_name(scene: Scene, rng: Generator) -> str:
    """The name of a shape the scene never has, often of its colours or kinds."""
    return "the {} {}".format(*_absent(scene, rng, list(scene.shapes)))


def box_text(scene: Scene, shape: Shape, time_s: float) -> str:
    """The shape's box in Qwen2-VL's format, rounded to GRAIN."""
    steps = [coordinate(value) for value in scene.unit_box(shape, time_s)]
    x0, y0, x1, y1 = steps
    reference = f"<|object_ref_start|>{shape.name}<|object_ref_end|>"
    return f"{reference}<|box_start|>({x0},{y0}),({x1},{y1})<|box_end|>"


def coordinate(fraction: float) -> int:
    """A fraction of a side as the model writes it."""
    return min(max(round(fraction * STEPS / GRAIN) * GRAIN, 0), STEPS - 1)


Pair = tuple[str, str]


def _count(scene: Scene, rng: Generator) -> Pair:
    return "How many shapes are there?", str(len(scene.shapes))


def _colour(scene: Scene, rng: Generator) -> Pair | None:
    kind = _one_of(rng, [s.kind for s in scene.shapes], KINDS)
    word = "color" if rng.random() < 0.25 else "colour"
    return _unique(f"What {word} is the {kind}?", [s.colour for s in scene.find(kind=kind)])


def _shape(scene: Scene, rng: Generator) -> Pair | None:
    colour = _one_of(rng, [s.colour for s in scene.shapes], tuple(COLOURS))
    return _unique(f"What shape is the {colour} one?", [s.kind for s in scene.find(colour=colour)])


def _direction(scene: Scene, rng: Generator) -> Pair:
    shape = _named(scene, rng)
    answer = NOT_THERE if isinstance(shape, str) else shape.direction or STILL
    return f"Which way does {_name(shape)} move?", answer


def _exists(scene: Scene, rng: Generator) -> Pair:
    is_there = bool(scene.shapes) and rng.random() < 0.5
    shape = _pick(rng, scene.shapes) if is_there else _absent(scene, rng, [])
    colour, kind = (shape.colour, shape.kind) if isinstance(shape, Shape) else shape
    return f"Is there {_article(colour)} {colour} {kind}?", "yes" if is_there else "no"


def _appears(scene: Scene, rng: Generator) -> Pair:
    times = [(s.appears_s, s.name) for s in scene.shapes if s.appears_s is not None]
    return "What appears first?", min(times)[1] if times else NOTHING


def _disappears(scene: Scene, rng: Generator) -> Pair:
    times = [(s.disappears_s, s.name) for s in scene.shapes if s.disappears_s is not None]
    return "What disappears first?", min(times)[1] if times else NOTHING


def _left_of(scene: Scene, rng: Generator) -> Pair | None:
    """The nearest on its left at the start, where both can be seen."""
    shape = _named(scene, rng)
    text = f"What is left of {_name(shape)} at the start?"
    if isinstance(shape, str):
        return text, NOT_THERE
    if not shape.is_visible(0.0):
        return None
    lefts = [(s.x, s.name) for s in scene.shapes if s.is_visible(0.0) and s.x < shape.x]
    return text, max(lefts)[1] if lefts else NOTHING


ASKING: dict[str, Callable[[Scene, Generator], Pair | None]] = {
    "count": _count,
    "colour": _colour,
    "shape": _shape,
    "direction": _direction,
    "exists": _exists,
    "appears": _appears,
    "disappears": _disappears,
    "left_of": _left_of,
}


def _unique(text: str, answers: list[str]) -> Pair | None:
    """No pair when two shapes would answer differently."""
    if len(answers) > 1:
        return None
    return text, answers[0] if answers else NOT_THERE


def _pick(rng: Generator, shapes: tuple[Shape, ...] | list[Shape]) -> Shape:
    return shapes[int(rng.integers(len(shapes)))]


def _one_of(rng: Generator, there: list[str], every: tuple[str, ...]) -> str:
    words = every if not there or rng.random() < ABSENT_SHARE else there
    return words[int(rng.integers(len(words)))]


def _named(scene: Scene, rng: Generator) -> Shape | str:
    """One of the scene's shapes, or sometimes the name of one that is not there."""
    if scene.shapes and rng.random() > ABSENT_SHARE:
        return _pick(rng, scene.shapes)
    colour, kind = _absent(scene, rng, list(scene.shapes))
    return f"the {colour} {kind}"


def _name(shape: Shape | str) -> str:
    return shape if isinstance(shape, str) else shape.name


def _absent(scene: Scene, rng: Generator, visible: list[Shape]) -> tuple[str, str]:
    """A colour and kind no shape of the scene has together; often one that nearly is there."""
    taken = {(shape.colour, shape.kind) for shape in scene.shapes}
    while True:
        colour, kind = str(rng.choice([*COLOURS])), str(rng.choice(KINDS))
        if visible and rng.random() < 0.6:
            near = _pick(rng, visible)
            colour, kind = (near.colour, kind) if rng.random() < 0.5 else (colour, near.kind)
        if (colour, kind) not in taken:
            return colour, kind


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
