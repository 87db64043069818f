"""Where tokens stand: the paper's rule, and the case in which transformers 5 departs from it."""

import pytest
import torch

from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.positions import (
    multimodal_rotary,
    position_after_video,
    rotary_tables,
    rotate,
    text_positions,
    video_positions,
)
from pipeline.types import ChunkSpan, Grid
from tests.tiny_model import (
    Reference,
    Scene,
    import_transformers,
    random_frames,
    random_ids,
    relative_error,
)


def test_text_stands_on_all_three_axes_together() -> None:
    assert text_positions(7, 3).tolist() == [[7, 8, 9]] * 3


def test_a_video_spreads_over_time_height_and_width() -> None:
    positions = video_positions(5, Grid(2, 4, 6, GEOMETRY))
    assert positions.tolist() == [
        [5, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6],
        [5, 5, 5, 6, 6, 6, 5, 5, 5, 6, 6, 6],
        [5, 6, 7, 5, 6, 7, 5, 6, 7, 5, 6, 7],
    ]


@pytest.mark.parametrize(
    ("grid", "after"),
    [
        (
            Grid(3, 4, 4, GEOMETRY),
            13,
        ),  # time is longest: the paper's figure 3, a video of 3 x 2 x 2
        (Grid(1, 8, 4, GEOMETRY), 14),  # height
        (Grid(2, 4, 10, GEOMETRY), 15),  # width
    ],
)
def test_text_after_a_video_starts_one_past_the_largest_axis(grid: Grid, after: int) -> None:
    assert position_after_video(10, grid) == after == int(video_positions(10, grid).max()) + 1


@pytest.mark.parametrize("cuts", [(0, 7), (0, 1, 7), (0, 3, 4, 7), tuple(range(8))])
def test_chunks_of_a_video_stand_where_the_whole_does(cuts: tuple[int, ...]) -> None:
    grid = Grid(7, 4, 6, GEOMETRY)
    spans = [ChunkSpan(i, *pair) for i, pair in enumerate(zip(cuts, cuts[1:], strict=False))]
    chunks = [video_positions(11, grid, span=span) for span in spans]
    assert torch.equal(torch.cat(chunks, dim=1), video_positions(11, grid))


@pytest.mark.parametrize("span", [(-1, 2), (2, 2), (3, 9)])
def test_a_chunk_outside_its_video_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="are not in"):
        video_positions(0, Grid(8, 4, 4, GEOMETRY), span=ChunkSpan(0, *span))


@pytest.mark.parametrize(("t", "agree"), [(2, True), (3, True), (4, False), (12, False)])
def test_transformers_5_places_text_too_early_after_a_long_video(
    default_reference: Reference, t: int, agree: bool
) -> None:
    """It takes max(h, w), not max(t, h, w): the video below is 2 x 3 tokens wide."""
    frames = random_frames(2 * t, 2, 3)
    scene = Scene((random_ids(4), frames, random_ids(5)))
    theirs = _transformers_positions(default_reference, scene)
    assert torch.equal(theirs, scene.positions) is agree
    assert int(scene.positions[0, -5]) == 4 + max(t, 3)
    assert int(theirs[0, -5]) == 4 + 3

    model = default_reference.oracle
    embeddings = default_reference.embeddings(scene)
    with torch.inference_mode():
        paper = default_reference.logits(embeddings, scene.positions)
        shifted = model(
            inputs_embeds=embeddings[None], position_ids=theirs[:, None], use_cache=False
        ).logits[0]
    assert (relative_error(shifted, paper) < 1e-5) is agree


def _transformers_positions(reference: Reference, scene: Scene) -> torch.Tensor:
    """By get_rope_index of transformers 5.23; text is type 0, video type 2."""
    types = [
        [0] * len(item) if isinstance(item, list) else [2] * Scene.grid(item).num_tokens
        for item in scene.items
    ]
    type_ids = torch.tensor([sum(types, [])])
    grids = [Scene.grid(item) for item in scene.items if not isinstance(item, list)]
    positions, _ = reference.oracle.model.get_rope_index(
        type_ids, type_ids, video_grid_thw=torch.tensor([[g.t, g.h, g.w] for g in grids])
    )
    return positions[:, 0]


def test_rotary_tables_equal_those_of_transformers(default_reference: Reference) -> None:
    config = default_reference.shape.config
    positions = torch.randint(0, 20_000, (3, 50))
    tables = multimodal_rotary(
        positions,
        head_dim=config.head_dim,
        theta=config.rope_theta,
        sections=config.mrope_section,
    )
    rotary = default_reference.oracle.model.language_model.rotary_emb
    expected = rotary(torch.zeros(1), positions[:, None])
    assert torch.equal(tables[0][:, 0], expected[0][0])
    assert torch.equal(tables[1][:, 0], expected[1][0, :, : config.head_dim // 2])


def test_far_positions_stay_apart_in_half_precision() -> None:
    """Tables are made in float32: in bfloat16 16,000 and 16,001 would be one place."""
    positions = torch.tensor([16_000, 16_001]).expand(3, 2)
    cos, _ = multimodal_rotary(positions, head_dim=16, theta=1e6, sections=(2, 3, 3))
    assert not torch.equal(cos[0], cos[1])


def test_turning_keeps_dtype_and_equals_the_reference() -> None:
    import_transformers()
    from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

    for dtype in (torch.float32, torch.bfloat16):
        heads = torch.randn(2, 9, 4, 20).to(dtype)
        angles = torch.rand(9, 10) * 6
        twice = torch.cat([angles, angles], dim=-1)
        turned = rotate(heads, *rotary_tables(angles))
        expected, _ = apply_rotary_pos_emb_vision(heads, heads, twice.cos(), twice.sin())
        assert turned.dtype == dtype
        torch.testing.assert_close(turned, expected)
