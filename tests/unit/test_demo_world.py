"""The demo model's world: what is drawn is what is said."""

import itertools
import re

import numpy as np
import pytest

from jobs.demo.questions import (
    ASKING,
    NOT_THERE,
    NOTHING,
    STILL,
    box_text,
    caption,
    find_question,
    random_question,
)
from jobs.demo.render import render
from jobs.demo.world import (
    COLOURS,
    DIRECTIONS,
    KINDS,
    MAX_SIZE,
    MIN_SIZE,
    Background,
    Scene,
    Shape,
    random_scene,
)
from jobs.lab.train.dataset import make_pairs
from jobs.lab.train.degrade import degrade
from jobs.lab.train.lessons import sample_times
from jobs.lab.train.paint import paint
from jobs.lab.train.targets import CELL, token_targets
from jobs.lab.train.vocabulary import CONTROL, encode_marked, load_tokenizer
from pipeline.families.qwen2_vl.boxes import Found, parse_boxes
from pipeline.types import Size

GREY = Background(kind="plain", first=(40, 40, 40), second=(40, 40, 40), seed=0)
STAR = Shape(colour="red", kind="star", size=0.3, x=0.4, y=0.5, direction="right", speed=0.1)
SQUARE = Shape(colour="blue", kind="square", size=0.2, x=1.2, y=0.5, appears_s=2.0)
SCENE = Scene(aspect=1.5, duration_s=4.0, shapes=(SQUARE, STAR), background=GREY)
SENTENCE = (
    rf"A ({'|'.join(COLOURS)}) ({'|'.join(KINDS)}) "
    rf"(moves ({'|'.join(DIRECTIONS)})|stays still)( and (appears|disappears))?\."
)


def scenes(count, **kwargs):
    return [random_scene(np.random.default_rng(seed), **kwargs) for seed in range(count)]


def test_every_shape_is_in_two_sampled_frames_and_so_has_a_direction_to_be_seen():
    for scene in scenes(500):
        num_frames = 2 * round(scene.duration_s)  # at 2 fps, an even number
        times = sample_times(scene.duration_s, num_frames)
        for shape in scene.shapes:
            assert sum(shape.is_visible(time_s) for time_s in times) >= 2


def test_equal_seeds_give_equal_scenes_and_batches():
    assert scenes(20) == scenes(20)
    one, two = (make_pairs(5, 3, batch_size=4) for _ in range(2))
    assert np.array_equal(one.frames, two.frames)
    assert np.array_equal(one.targets.boxes, two.targets.boxes)
    assert not np.array_equal(
        one.frames.ravel()[:99], make_pairs(6, 3, batch_size=4).frames.ravel()[:99]
    )


def test_shapes_keep_to_the_world_s_rules():
    for scene in scenes(200):
        assert len({(s.colour, s.kind) for s in scene.shapes}) == len(scene.shapes) <= 3
        width, height = scene.extent
        for shape in scene.shapes:
            assert MIN_SIZE <= shape.size <= MAX_SIZE
            for time_s in np.linspace(0, scene.duration_s, 40, endpoint=False):
                if shape.is_visible(time_s):
                    x0, y0, x1, y1 = shape.box(time_s)
                    assert min(x0, y0) >= -1e-9
                    assert x1 <= width + 1e-9
                    assert y1 <= height + 1e-9


def test_shapes_never_touch():
    for scene in scenes(200):
        for one, other in itertools.combinations(scene.shapes, 2):
            for time_s in np.linspace(0, scene.duration_s, 100, endpoint=False):
                if one.is_visible(time_s) and other.is_visible(time_s):
                    a, b = one.box(time_s), other.box(time_s)
                    assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draw", [render, lambda *a, **k: np.stack([*paint(*a, **k)])])
def test_a_drawn_shape_fills_its_box_and_no_more(kind, draw):
    shape = Shape(colour="white", kind=kind, size=0.37, x=0.52, y=0.41)
    scene = Scene(aspect=1.25, duration_s=2.0, shapes=(shape,), background=GREY)
    picture = draw(scene, [0.0], height=200, width=250)[0]
    rows, columns = np.nonzero(picture[..., 0] > 140)
    x0, y0, x1, y1 = scene.unit_box(shape, 0.0)
    drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert drawn == pytest.approx((x0 * 250, y0 * 200, x1 * 250, y1 * 200), abs=2.0)


def test_a_shape_is_drawn_only_while_it_is_there():
    alone = Scene(aspect=1.5, duration_s=4.0, shapes=(SQUARE,), background=GREY)
    before, after = render(alone, [1.99, 2.0], height=56, width=84)
    assert before.max() == 40
    assert after[..., 2].max() > 200


def test_captions_name_shapes_left_to_right_where_first_seen():
    assert caption(SCENE) == "A red star moves right. A blue square stays still and appears."
    for scene in scenes(100):
        text = caption(scene)
        assert re.fullmatch(rf"({SENTENCE} ?)+|Nothing is there\.", text)


@pytest.mark.parametrize(
    ("kind", "text", "answer"),
    [
        ("count", "How many shapes are there?", "2"),
        ("colour", "What colour is the star?", "red"),
        ("colour", "What color is the square?", "blue"),
        ("colour", "What colour is the circle?", NOT_THERE),
        ("shape", "What shape is the blue one?", "square"),
        ("shape", "What shape is the green one?", NOT_THERE),
        ("direction", "Which way does the red star move?", "right"),
        ("direction", "Which way does the blue square move?", STILL),
        ("exists", "Is there a red star?", "yes"),
        ("exists", "Is there a blue star?", "no"),
        ("appears", "What appears first?", "the blue square"),
        ("disappears", "What disappears first?", NOTHING),
        ("left_of", "What is left of the red star at the start?", NOTHING),
    ],
)
def test_every_answer_is_the_truth(kind, text, answer):
    seen = {
        pair
        for seed in range(400)
        if (pair := ASKING[kind](SCENE, np.random.default_rng(seed))) is not None
    }
    assert (text, answer) in seen
    assert {said for asked, said in seen if asked == text} == {answer}


def test_a_question_with_two_answers_is_not_asked():
    twice = Scene(
        aspect=1.0,
        duration_s=2.0,
        shapes=(STAR, Shape(colour="blue", kind="star", size=0.2, x=0.8, y=0.1)),
        background=GREY,
    )
    asked = [ASKING["colour"](twice, np.random.default_rng(seed)) for seed in range(200)]
    assert all(pair is None or "star" not in pair[0] for pair in asked)


def test_absent_things_are_asked_for_often_and_are_really_absent():
    rng = np.random.default_rng(0)
    kinds = [find_question(SCENE, 0.0, rng) for _ in range(300)]
    refused = [q for q in kinds if q.answer == NOT_THERE]
    assert 0.1 < len(refused) / len(kinds) < 0.4
    assert not any("red star" in q.text or "blue square" in q.text for q in refused)


def test_a_box_read_back_is_the_shape_s_box():
    (found,) = parse_boxes(box_text(SCENE, STAR, 1.0), source=Size(200, 300))
    assert isinstance(found, Found)
    assert found.label == "the red star"
    expected = np.array(SCENE.unit_box(STAR, 1.0)) * (300, 200, 300, 200)
    assert (found.box.x0, found.box.y0, found.box.x1, found.box.y1) == pytest.approx(
        expected, abs=0.006 * 300
    )


def test_token_targets_give_back_every_box():
    target = token_targets(SCENE, (2.5, 3.0), rows=4, columns=6)
    centres = np.flatnonzero(target.is_centre)
    assert len(centres) == 2
    for centre in centres:
        shape = SCENE.shapes[0] if target.kind[centre] == KINDS.index("square") else SCENE.shapes[1]
        middle = np.array([centre % 6 + 0.5, centre // 6 + 0.5] * 2)
        box = (target.boxes[centre, 1] + middle) * CELL
        expected = np.array(SCENE.unit_box(shape, 3.0)) * (168, 112, 168, 112)
        assert box == pytest.approx(expected, abs=1e-3)


def test_degrading_keeps_a_picture_recognisable():
    clean = render(SCENE, [0.0, 0.5], height=112, width=168)
    for seed in range(20):
        worn = degrade(clean, np.random.default_rng(seed))
        assert worn.shape == clean.shape
        assert np.abs(worn.astype(int) - clean).mean() < 25


def test_every_word_of_the_world_is_one_token_and_other_words_survive():
    tokenizer = load_tokenizer()
    for word in [*COLOURS, *KINDS, *DIRECTIONS]:
        assert len(tokenizer.encode_text(f" {word}")) == 1
    for number in range(0, 1000, 10):
        assert len(tokenizer.encode_text(str(number))) == 1
    for text in ("Wörter that nobody taught it: 12345", "🦀", "<|im_end|>"):
        assert tokenizer.decode(tokenizer.encode_text(text)) == text


def test_everything_the_world_says_is_written_and_read_alike():
    tokenizer = load_tokenizer()
    rng = np.random.default_rng(1)
    for scene in scenes(30):
        questions = [random_question(scene, rng), find_question(scene, 0.0, rng)]
        for text in [q.answer for q in questions if q] + [caption(scene)]:
            ids = encode_marked(tokenizer, text)
            assert tokenizer.decode(ids, keep_control=True) == text
    assert load_tokenizer().json == tokenizer.json
    assert all(tokenizer.control_id(token) for token in CONTROL)
