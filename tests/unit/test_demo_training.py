"""The demo model's training: through the served model's own layers, resumable, exported whole."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from jobs.demo.demo_archive import box_truths, make_archive
from jobs.demo.drawn_clips import Encoding
from jobs.demo.scores import Scores, overlap_of
from jobs.demo.world import random_scene
from jobs.lab.train.dataset import make_pairs
from jobs.lab.train.export import export
from jobs.lab.train.heads import SIZES, FactEmbedding, VisionHeads, facts_of
from jobs.lab.train.language_stage import DecoderLearner, Learner
from jobs.lab.train.lessons import make_clips
from jobs.lab.train.muon import Muon, orthogonal
from jobs.lab.train.packed import pack, packed_hidden
from jobs.lab.train.teacher import Teacher
from jobs.lab.train.train import untrained
from jobs.lab.train.trainer import Averaged, Optimiser, RateSchedule, TrainingRun
from jobs.lab.train.vision_stage import VisionLearner
from jobs.lab.train.vocabulary import load_tokenizer
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.positions import (
    position_after_video,
    text_positions,
    video_positions,
)
from pipeline.model.language import Segment
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.weights import load_model


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="module")
def clips(tokenizer):
    """A batch of short videos, not of stills."""
    batches = (
        make_clips(0, i, tokenizer_json=tokenizer.json, longest=((0, 2),))
        for i in itertools.count()
    )
    batch = next(b for b in batches if b.frames.shape[1] > GEOMETRY.temporal)
    batch.frames, batch.asked, batch.targets = (
        batch.frames[:3],
        batch.asked[:3],
        _cut(batch.targets, 3),
    )
    return batch


def test_packed_questions_are_answered_as_if_asked_alone(tokenizer, clips):
    model = untrained(tokenizer, seed=0)
    frames, grid = torch.from_numpy(clips.frames), clips.grid
    prefix = [3, 1, 4]
    lesson = clips.asked
    with torch.no_grad():
        tokens = model.vision(frames)
        passed = packed_hidden(model.language, tokens, grid, prefix=prefix, packing=pack(lesson))
        for row, clip in enumerate(lesson):
            first = passed.text_start
            for segment in clip:
                last = first + len(segment.ids)
                alone = _alone(model, tokens[row], grid, prefix, segment.ids)
                assert torch.allclose(passed.states[-1][row, first:last], alone, atol=2e-5)
                first = last


def _alone(model, video, grid, prefix, ids):
    embed = model.language.embed
    embeddings = torch.cat((embed(torch.tensor(prefix)), video, embed(torch.tensor(ids))))
    start = len(prefix)
    places = (
        text_positions(0, start),
        video_positions(start, grid),
        text_positions(position_after_video(start, grid), len(ids)),
    )
    hidden = model.language(embeddings, torch.cat(places, dim=1), [Segment(None, len(embeddings))])
    return hidden[-len(ids) :]


def vision_run(folder, tokenizer, num_steps):
    tower = untrained(tokenizer, seed=0).vision
    learner = VisionLearner(tower, FactEmbedding(tower.config.hidden_size))
    schedule = RateSchedule(num_steps=num_steps, warmup=2)
    return TrainingRun(folder, learner, Optimiser(learner), schedule, Averaged(learner)), learner


def test_a_resumed_run_ends_with_the_same_bits_as_one_that_never_stopped(tmp_path, tokenizer):
    make = partial(make_pairs, 0, batch_size=2)
    whole, learner = vision_run(tmp_path / "whole", tokenizer, 4)
    whole.train(map(make, range(9)), learner.loss_of)
    first, learner = vision_run(tmp_path / "parts", tokenizer, 4)
    first.train(map(make, range(2)), learner.loss_of)
    assert first.step == 2
    second, learner = vision_run(tmp_path / "parts", tokenizer, 4)
    assert second.resume()
    second.train(map(make, range(second.step, 9)), learner.loss_of)
    assert second.step == whole.step == 4
    for (name, one), other in zip(
        whole.module.named_parameters(), second.module.parameters(), strict=True
    ):
        assert torch.equal(one, other), name
        assert torch.equal(whole.average.values[name], second.average.values[name])


def whole_learner(model, tokenizer):
    return Learner(model, VisionHeads(model.config.hidden_size), Teacher(model.config, tokenizer))


def decoder_learner(model, tokenizer):
    facts = FactEmbedding(model.config.hidden_size)
    return DecoderLearner(model.language, facts, Teacher(model.config, tokenizer))


@pytest.mark.parametrize("make", [whole_learner, decoder_learner])
def test_a_few_steps_on_one_batch_lower_its_loss(tokenizer, clips, make):
    learner = make(untrained(tokenizer, seed=0), tokenizer)
    optimiser = Optimiser(learner)
    losses = []
    for _ in range(4):
        loss, figures = learner.loss_of(clips)
        loss.backward()
        optimiser.step(0.3)
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    assert {"caption", "answer_loss"} <= figures.keys()
    assert all(p.grad is None for p in learner.parameters())


def test_facts_of_a_token_are_all_there(clips):
    facts, targets = facts_of(clips.targets), clips.targets
    is_shape = torch.from_numpy(targets.is_shape) > 0
    assert facts.shape == (*is_shape.shape, sum(SIZES))
    assert not facts[~is_shape].any()
    colour = facts[..., 2:10].argmax(-1)[is_shape]
    assert torch.equal(colour, torch.from_numpy(targets.colour)[is_shape])


def test_clips_that_are_not_drawn_ask_and_know_the_same(tokenizer):
    make = partial(make_clips, 0, 0, tokenizer_json=tokenizer.json, longest=((0, 2),))
    sight_unseen = make(is_drawn=False)
    assert sight_unseen.frames.size == 0
    assert sight_unseen.grid == make().grid
    assert make(is_drawn=False).asked == sight_unseen.asked


def _cut(targets, count):
    values = {name: getattr(targets, name)[:count] for name in type(targets).__slots__}
    return type(targets)(**values)


@pytest.mark.parametrize("shape", [(3, 8, 24), (2, 24, 8), (1, 16, 16)])
def test_muon_steps_along_near_orthogonal_matrices(shape):
    steps = orthogonal(torch.randn(shape))
    assert steps.shape == shape
    values = torch.linalg.svdvals(steps)
    assert values.min() > 0.3
    assert values.max() < 1.4


def test_muon_lowers_a_quadratic():
    weight = torch.nn.Parameter(torch.randn(6, 6))
    optimiser = Muon([weight], rate=0.1)
    losses = []
    for _ in range(40):
        loss = weight.square().sum()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_an_exported_model_loads_as_any_checkpoint_and_is_the_same(tmp_path, tokenizer):
    model = untrained(tokenizer, seed=1).requires_grad_(False)
    export(model, tokenizer, tmp_path, card="# a card\n")
    loaded = load_model(tmp_path)
    assert loaded.config == model.config
    assert Tokenizer.load(tmp_path).json == tokenizer.json
    for (name, one), other in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6), name


def test_an_archive_is_the_same_for_a_seed_and_knows_its_truth(tmp_path):
    first = make_archive(tmp_path / "a", 2, 7, max_side=96)
    second = make_archive(tmp_path / "b", 2, 7, max_side=96)
    assert [truth for _, truth in first] == [truth for _, truth in second]
    assert all(path.stat().st_size > 500 for path, _ in first)
    lines = (tmp_path / "a" / "truth.jsonl").read_text().splitlines()
    assert len(lines) == 2
    for path, truth in first:
        assert path.name == truth.file
        assert len(truth.questions) == 3
        for box in truth.boxes:
            assert box.box is None or box.box[2] <= truth.width + 1e-6


def test_one_box_is_asked_for_that_is_there_and_one_that_is_not():
    rng = np.random.default_rng(0)
    encoding = Encoding(width=128, height=128)
    for seed in range(30):
        scene = random_scene(np.random.default_rng(seed), aspect=1.0)
        *there, absent = box_truths(scene, encoding, rng)
        assert absent.box is None
        assert absent.query not in {shape.name for shape in scene.shapes}
        assert all(box.query in {shape.name for shape in scene.shapes} for box in there)


def test_scores_count_by_kind():
    scores = Scores()
    scores.count("colour", said="red", truth="red", about="a")
    scores.count("colour", said="blue", truth="red", about="b")
    scores.count("count", said="2", truth="2", about="b")
    figures = scores.figures
    assert figures["colour"] == figures["worst_kind"] == 0.5
    assert figures["answers"] == pytest.approx(2 / 3)
    assert scores.mistakes == [("b", "colour", "red", "blue")]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 1, 1), (2, 2, 3, 3), 0.0),
    ],
)
def test_overlap(one, other, expected):
    assert overlap_of(one, other) == pytest.approx(expected)


def test_grids_of_training_are_grids_of_the_plan(clips):
    _, _, height, width, _ = clips.frames.shape
    assert height % GEOMETRY.factor == width % GEOMETRY.factor == 0
    assert 20 <= height * width / 784 <= 40
