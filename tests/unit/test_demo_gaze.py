"""What attention is taught to look at: the shapes that words mean, and nothing where none is."""

import pytest
import torch

from jobs.demo.questions import QuestionTruth
from jobs.lab.train.gaze import ANY, Look, meant
from jobs.lab.train.lessons import SegmentEncoder, make_clips
from jobs.lab.train.packed import pack, packed_hidden
from jobs.lab.train.targets import COLOUR_INDEX, KIND_INDEX
from jobs.lab.train.train import untrained
from jobs.lab.train.vocabulary import load_tokenizer

RED, BLUE = COLOUR_INDEX["red"], COLOUR_INDEX["blue"]
STAR, SQUARE = KIND_INDEX["star"], KIND_INDEX["square"]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


def segment(tokenizer, text, answer):
    return SegmentEncoder(tokenizer).segment(QuestionTruth("any", text, answer))


def names(looks):
    return list(dict.fromkeys((look.colour, look.kind) for look in looks))


@pytest.mark.parametrize(
    ("text", "answer", "asked", "answered"),
    [
        ("Which way does the red star move?", "left", [(RED, STAR)], [(RED, STAR)]),
        ("What colour is the star?", "red", [(ANY, STAR)], [(RED, STAR)]),
        ("What shape is the red one?", "star", [(RED, ANY)], [(RED, STAR)]),
        ("What appears first?", "the blue square", [], [(BLUE, SQUARE)]),
        ("What appears first?", "nothing", [], []),
        (
            "What is left of the red star at the start?",
            "the blue square",
            [(RED, STAR)],
            [(BLUE, SQUARE)],
        ),
        (
            "Describe this video.",
            "A red star stays still. A blue square moves up.",
            [],
            [(RED, STAR), (BLUE, SQUARE)],
        ),
    ],
)
def test_words_mean_shapes(tokenizer, text, answer, asked, answered):
    found = segment(tokenizer, text, answer)
    assert names(found.asked) == asked
    assert names(found.answered) == answered


def test_looking_never_runs_ahead_of_what_is_known(tokenizer):
    found = segment(tokenizer, "What shape is the red one?", "star")
    last_name = found.ids.index(tokenizer.encode_text(" red")[0])
    assert min(look.place for look in found.asked) == last_name
    assert min(look.place for look in found.answered) == found.answer_start - 1
    assert max(look.place for look in found.asked + found.answered) == len(found.ids) - 2


def test_what_is_not_there_is_meant_by_no_token(tokenizer):
    clips = make_clips(0, 3, tokenizer_json=tokenizer.json, longest=((0, 4),), is_drawn=False)
    colours = set(clips.targets.colour[0][clips.targets.is_shape[0] > 0])
    for colour in COLOUR_INDEX.values():
        found = meant(Look(0, colour, ANY), clips.targets, 0)
        assert found.any() == (colour in colours)
        assert (clips.targets.colour[0][found] == colour).all()


def test_taught_attention_sees_the_video_and_its_own_question_only(tokenizer):
    clips = make_clips(0, 3, tokenizer_json=tokenizer.json, longest=((0, 4),))
    model = untrained(tokenizer, seed=0)
    with torch.no_grad():
        passed = packed_hidden(
            model.language,
            model.vision(torch.from_numpy(clips.frames)),
            clips.grid,
            prefix=[3, 1, 4],
            packing=pack(clips.asked),
        )
        row, place = torch.tensor([0, 1]), torch.tensor([0, 7])
        log_p = passed.attention(2, row, place)
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(2, 2))
    own = torch.arange(log_p.shape[-1]) - passed.text_start
    assert (log_p[0, :, own > 0] == -torch.inf).all()  # a first place sees the video and itself
    assert (log_p[1, :, own > 7] == -torch.inf).all()
