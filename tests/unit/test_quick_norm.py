"""Norms in few operations: what torch's own compute, row by row."""

import pytest
import torch

from pipeline.model.language import Norm
from pipeline.model.quick_norm import QuickNorm, quicken_norms
from tests.tiny_model import Tiny, relative_error, tiny_model

WIDTH = 96


def norm() -> Norm:
    made = Norm(WIDTH, 1e-6)
    torch.nn.init.normal_(made.weight)
    return made


@torch.inference_mode()
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e4])
def test_a_quick_norm_computes_what_the_norm_does(scale: float) -> None:
    exact, x = norm(), scale * torch.randn(7, WIDTH)
    x[0, 3] *= 300  # as massive activations are
    assert relative_error(QuickNorm(exact)(x), exact(x)) < 1e-6


@torch.inference_mode()
def test_rows_of_zeros_stay_zeros_and_others_are_as_alone() -> None:
    quick, x = QuickNorm(norm()), torch.randn(5, WIDTH)
    x[2] = 0
    y = quick(x)
    assert not y[2].any()
    assert all(torch.equal(quick(x[row : row + 1])[0], y[row]) for row in range(len(x)))


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, QuickNorm), (torch.bfloat16, Norm)])
def test_only_norms_of_float32_are_replaced(dtype: torch.dtype, kind: type) -> None:
    model = tiny_model(Tiny(seed=5)).language.to(dtype)
    quicken_norms(model)
    found = [each for each in model.modules() if isinstance(each, Norm | QuickNorm)]
    assert len(found) == 2 * len(model.layers) + 1
    assert all(type(each) is kind for each in found)
