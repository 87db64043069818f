"""The vision tower: the reference's patches and tokens, and no trace of how a clip was cut."""

import pytest
import torch
from torch import Tensor

from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.families.qwen2_vl.vision import VisionTower, cut
from tests.tiny_model import Reference, Scene, Tiny, random_frames, relative_error, tiny_model

CLIPS = {
    "video": random_frames(6, 2, 3),
    "odd": random_frames(5, 3, 1),
    "image": random_frames(1, 4, 2),
    "one patch": random_frames(2, 1, 1),
}


def normalised_patches(frames: Tensor, *, mean: Tensor, std: Tensor) -> Tensor:
    """`cut`, normalised, columns as the reference orders them: channel, time, row, column."""
    pixels = cut(frames, GEOMETRY).unflatten(-1, (2, 14, 14, 3)).double()
    patches = ((pixels / 255 - mean) / std).float()
    return patches.movedim(-1, 1).flatten(1)


@pytest.mark.parametrize("name", CLIPS)
def test_patches_equal_those_of_the_reference_processor(
    default_reference: Reference, name: str
) -> None:
    vision = default_reference.shape.config.vision
    mean, std = (
        torch.tensor(x, dtype=torch.float64) for x in (vision.image_mean, vision.image_std)
    )
    ours = normalised_patches(Scene.even(CLIPS[name]), mean=mean, std=std)
    theirs = default_reference.pixels(CLIPS[name])
    grid = Scene.grid(CLIPS[name])
    assert theirs["grid"].tolist() == [[grid.t, grid.h, grid.w]]
    torch.testing.assert_close(ours, theirs["patches"], rtol=0, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("name", CLIPS)
def test_tokens_equal_the_reference_tower(
    reference: Reference, exact_model: Qwen2VL, name: str
) -> None:
    frames = CLIPS[name]
    ours = exact_model.vision(Scene.even(frames))
    assert ours.shape == (Scene.grid(frames).num_tokens, reference.shape.config.hidden_size)
    assert relative_error(ours, reference.embeddings(Scene((frames,)))) < 1e-5


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    return tiny_model(Tiny(seed=11)).vision


@torch.inference_mode()
@pytest.mark.parametrize("steps", [(1, 1, 1, 1, 1, 1), (2, 4), (5, 1), (3, 3)])
def test_any_chunking_gives_the_tokens_of_the_whole_clip(
    tower: VisionTower, steps: tuple[int, ...]
) -> None:
    frames = random_frames(12, 3, 2)
    chunks = [tower(chunk) for chunk in torch.split(frames, [2 * n for n in steps])]
    assert relative_error(torch.cat(chunks), tower(frames)) < 1e-6


@torch.inference_mode()
def test_at_one_batch_shape_tokens_are_equal_to_the_bit_whatever_stands_beside_them(
    tower: VisionTower,
) -> None:
    frames = random_frames(8, 3, 2)
    first, second = tower(frames[:4]), tower(frames[4:])
    assert torch.equal(tower(frames[:4]), first)
    beside = torch.cat([frames[:2], random_frames(2, 3, 2, seed=9)])
    assert torch.equal(tower(beside)[:6], first[:6])
    assert torch.equal(tower(torch.cat([frames[6:], frames[4:6]]))[:6], second[6:])


@torch.inference_mode()
def test_a_batch_of_chunks_equals_the_chunks(tower: VisionTower) -> None:
    chunks = torch.stack([random_frames(4, 2, 2, seed=seed) for seed in range(3)])
    tokens = tower(chunks)
    assert tokens.shape == (3, 8, 64)
    for batched, chunk in zip(tokens, chunks, strict=True):
        assert relative_error(batched, tower(chunk)) < 1e-6


def test_training_reaches_every_parameter(tower: VisionTower) -> None:
    tower(random_frames(4, 2, 2)).square().sum().backward()
    for name, parameter in tower.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (random_frames(3, 2, 2), "T % 2"),
        (torch.zeros(2, 42, 28, 3, dtype=torch.uint8), "H % 28"),
        (torch.zeros(2, 28, 30, 3, dtype=torch.uint8), "W % 28"),
        (torch.zeros(2, 28, 28, 3), "uint8"),
        (torch.zeros(2, 3, 28, 28, dtype=torch.uint8), "uint8"),
    ],
)
def test_frames_of_a_wrong_shape_are_refused_by_name(
    tower: VisionTower, frames: Tensor, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        tower(frames)
