"""What the demo model is taught about time: when shapes are there, come and go."""

import numpy as np
import pytest
import torch

from jobs.demo.world import COLOURS, KINDS, Background, Scene, Shape
from jobs.lab.train.gaze import Gazes
from jobs.lab.train.lessons import make_clips
from jobs.lab.train.targets import COLOUR_INDEX, KIND_INDEX, TokenTargets, token_targets
from jobs.lab.train.teacher import Teacher
from jobs.lab.train.time_heads import changes, first_x
from jobs.lab.train.train import untrained
from jobs.lab.train.vocabulary import load_tokenizer
from pipeline.types import Grid

RED, STAR = COLOUR_INDEX["red"], len(COLOURS) + KIND_INDEX["star"]
NUM_WORDS = len(COLOURS) + len(KINDS)
TIMES_S = [(0.0, 0.5), (1.0, 1.5), (2.0, 2.5), (3.0, 3.5)]


def clip_targets(**events):
    """A blue circle that stays all the time, and a red star with these events."""
    still = Shape(colour="blue", kind="circle", size=0.3, x=0.2, y=0.5)
    star = Shape(colour="red", kind="star", size=0.3, x=0.7, y=0.5, **events)
    dull = Background(kind="plain", first=(0, 0, 0), second=(0, 0, 0), seed=0)
    scene = Scene(aspect=1.0, duration_s=4.0, shapes=(still, star), background=dull)
    steps = [token_targets(scene, pair, rows=6, columns=6) for pair in TIMES_S]
    return TokenTargets.stack([TokenTargets.join(steps)])


@pytest.mark.parametrize(
    ("events", "came", "went"),
    [
        ({}, [], []),
        ({"appears_s": 1.2}, [1], []),  # between the two frames of a patch
        ({"appears_s": 1.7}, [2], []),  # between two patches
        ({"disappears_s": 2.2}, [], [2]),
        ({"disappears_s": 2.7}, [], [3]),
    ],
)
def test_what_comes_and_goes_is_told_by_name_in_the_step_that_shows_it(events, came, went):
    told = changes(clip_targets(**events), len(TIMES_S))[0]
    expected = np.zeros((len(TIMES_S), 2 * NUM_WORDS))
    for first_word, steps in ((0, came), (NUM_WORDS, went)):
        for step in steps:
            expected[step, [first_word + RED, first_word + STAR]] = 1
    assert (told == expected).all()


@pytest.mark.parametrize(("appears_s", "seen_first_s"), [(None, 0.0), (1.2, 1.5), (1.7, 2.0)])
def test_every_token_of_a_shape_is_told_where_that_shape_was_first_seen(appears_s, seen_first_s):
    targets = clip_targets(direction="left", speed=0.1, appears_s=appears_s)
    told = first_x(targets, len(TIMES_S), num_columns=6)
    for colour, expected in (("blue", 6 * 0.2), ("red", 6 * (0.7 - 0.1 * seen_first_s))):
        own = (targets.is_shape > 0) & (targets.colour == COLOUR_INDEX[colour])
        assert own.any()
        assert told[own] == pytest.approx(expected, abs=1e-5)
    assert not told[targets.is_shape == 0].any()


def test_a_look_at_one_step_keeps_its_tokens_only():
    looks = Gazes(torch.zeros(1), torch.zeros(1), torch.ones(1, 12, dtype=torch.bool))
    assert looks.at_step(0, 3).found[0].nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert looks.at_step(-1, 3).found[0].nonzero().flatten().tolist() == [8, 9, 10, 11]


def test_a_teacher_lays_video_tokens_where_it_is_told():
    """Positions are what one ablation is about: with others, the same clips give another loss."""
    tokenizer = load_tokenizer()
    model = untrained(tokenizer, seed=0)
    batch = make_clips(0, 3, tokenizer_json=tokenizer.json, longest=((0, 4),))

    def loss(**positions):
        with torch.no_grad():
            tokens = model.vision(torch.from_numpy(batch.frames))
            return Teacher(model.config, tokenizer, **positions)(model.language, tokens, batch)[0]

    def all_at_one_place(start, grid: Grid):
        return torch.full((3, grid.num_tokens), start)

    assert loss() == loss()
    assert loss() != loss(positions=all_at_one_place)
