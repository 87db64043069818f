"""oneDNN's layout: the same numbers whoever shares the batch, and no second copy of a weight."""

import weakref

import pytest
import torch

from pipeline.model.language import LanguageModel
from pipeline.model.packed_weights import PackedLinear, kernel_rows, pack
from pipeline.model.parallel import (
    ParallelLinear,
    RowParallelLinear,
    TensorParallel,
    replace_linears,
)
from tests.tiny_model import Tiny, random_frames, relative_error, tiny_model

WIDTHS = (96, 160)


def row_parallel(parallel: TensorParallel) -> RowParallelLinear:
    layer = RowParallelLinear(*WIDTHS, name="x", bias=True, parallel=parallel, scale=0.5)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def num_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@torch.inference_mode()
@pytest.mark.parametrize("num_rows", [0, 1, 3, 64])
def test_a_packed_layer_computes_what_the_layer_does(num_rows: int):
    layer, x = row_parallel(TensorParallel()), torch.randn(num_rows, WIDTHS[0])
    ours, expected = PackedLinear(layer)(x), layer(x)
    assert ours.shape == expected.shape
    assert num_rows == 0 or relative_error(ours, expected) < 1e-6


@torch.inference_mode()
@pytest.mark.parametrize("num_rows", [0, 1, 3, 64])
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_residual_is_added_once(
    num_rows: int, num_ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = row_parallel(TensorParallel())
    layer.parallel = TensorParallel(size=num_ranks)
    if num_ranks > 1:  # as if the other's share were the same
        monkeypatch.setattr(TensorParallel, "all_reduce", lambda self, x: self.size * x)
    x, residual = torch.randn(num_rows, WIDTHS[0]), torch.randn(num_rows, WIDTHS[1])
    ours, expected = PackedLinear(layer)(x, residual), layer(x) + residual
    assert ours.shape == expected.shape
    assert num_rows == 0 or relative_error(ours, expected) < 1e-6


@torch.inference_mode()
def test_only_the_first_rank_adds_the_bias():
    layer = row_parallel(TensorParallel(rank=1, size=2))
    layer.parallel = TensorParallel(rank=1, size=1)  # alone, so that nothing is added to its share
    x = torch.randn(3, WIDTHS[0] // 2)
    share = 0.5 * x @ layer.weight.T
    assert relative_error(PackedLinear(layer)(x), share) < 1e-6


@torch.inference_mode()
@pytest.mark.parametrize("num_rows", [2, 3, 20, 300])
@pytest.mark.parametrize("widths", [(1536, 4480), (4480, 1536)])
def test_so_it_is_in_large_layers_from_two_rows_on_with_any_threads(
    widths: tuple[int, int], num_rows: int
):
    layer = RowParallelLinear(*widths, name="x", bias=False, parallel=TensorParallel())
    torch.nn.init.normal_(layer.weight)
    packed, x, results = PackedLinear(layer), torch.randn(600, widths[0]), []
    before = torch.get_num_threads()
    try:
        for num_threads, rows in ((2, x), (1, x[:num_rows]), (2, x[:num_rows])):
            torch.set_num_threads(num_threads)
            results.append(packed(rows)[:num_rows])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_weight_is_free_before_the_next_one_is_packed():
    alive, most = weakref.WeakSet[torch.nn.Module](), 0
    model = tiny_model(Tiny(seed=5)).vision
    alive.update(layer for layer in model.modules() if isinstance(layer, ParallelLinear))
    total = len(alive)

    def make(layer: ParallelLinear) -> torch.nn.Module:
        nonlocal most
        num_made = sum(isinstance(each, PackedLinear) for each in model.modules())
        most = max(most, len(alive) + num_made)
        return PackedLinear(layer)

    replace_linears(model, make)
    assert total > 5
    assert most == total


@torch.inference_mode()
@pytest.mark.parametrize("num_rows", [1, 2, 7, 40])
def test_a_row_is_the_same_to_the_bit_whatever_rows_come_with_it(num_rows: int):
    layer, x = PackedLinear(row_parallel(TensorParallel())), torch.randn(64, WIDTHS[0])
    assert torch.equal(layer(x[:num_rows]), layer(x)[:num_rows])


def test_few_kernels_serve_every_number_of_rows():
    sizes = [kernel_rows(num_rows) for num_rows in range(2049)]
    assert all(
        0 <= size - num_rows <= max(size // 2 - 1, 0)
        for num_rows, size in enumerate(sizes)
        if num_rows
    )
    assert all(
        size - num_rows < num_rows / 4 for num_rows, size in enumerate(sizes) if num_rows > 128
    )
    assert sorted(sizes) == sizes
    assert len(set(sizes)) < 50


@pytest.mark.parametrize("is_tied", [False, True])
def test_packed_weights_take_the_place_of_the_others(is_tied: bool):
    model = tiny_model(Tiny(seed=5, tied=is_tied))
    for half in (model.vision, model.language):
        pack(half, min_elements=0)
        assert not any(isinstance(layer, ParallelLinear) for layer in half.modules())
    shown, language = model.vision, model.language
    kept = num_parameters(shown.patch_embed) + language.embed_tokens.weight.numel()
    norms = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    assert num_parameters(model) == kept + norms
    tokens = shown(random_frames(2, 2, 2))
    assert language.logits(tokens).shape == (len(tokens), language.config.vocab_size)


@pytest.mark.parametrize(("dtype", "min_elements"), [(torch.bfloat16, 0), (torch.float32, 1 << 17)])
def test_what_would_not_gain_stays_as_it_is(dtype: torch.dtype, min_elements: int):
    model: LanguageModel = tiny_model(Tiny(seed=5)).language.to(dtype)
    before = num_parameters(model)
    pack(model, min_elements=min_elements)
    assert num_parameters(model) == before
