"""Weights are moved in memory for generation's sake and mean the same afterwards."""

import pytest
import torch

from pipeline.model.arrange import arrange_for_generation
from pipeline.model.quantize import measure
from tests.tiny_model import Tiny, random_ids, tiny_model

SHAPES = {"untied": Tiny(seed=5), "tied": Tiny(seed=5, tied=True)}


def is_by_columns(weight: torch.Tensor) -> bool:
    return weight.t().is_contiguous() and not weight.is_contiguous()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_wide_matrices_are_stored_by_columns_and_give_the_same_scores(shape: Tiny):
    exact, moved = tiny_model(shape).language, tiny_model(shape).language
    arrange_for_generation(moved)
    layer = moved.layers[0]
    assert is_by_columns(layer.mlp.gate_up.weight)
    assert not is_by_columns(layer.mlp.down_proj.weight)
    assert is_by_columns((moved.lm_head or moved.embed_tokens).weight)
    assert measure(exact, moved, random_ids(32)).relative < 1e-6
    for name, parameter in exact.named_parameters():
        assert torch.equal(parameter, moved.get_parameter(name))


def test_a_table_that_is_only_looked_up_stays():
    model = tiny_model(SHAPES["untied"]).language
    arrange_for_generation(model)
    assert model.embed_tokens.weight.is_contiguous()


def test_half_precision_weights_stay():
    model = tiny_model(SHAPES["untied"]).language.to(torch.bfloat16)
    arrange_for_generation(model)
    assert all(parameter.is_contiguous() for parameter in model.parameters())
