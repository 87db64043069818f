"""The int8 mode: close to the exact model, row by row, and refused where it can't run."""

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from jobs import model_check
from pipeline.errors import ConfigError
from pipeline.model import quantize as int8
from pipeline.model.language import LanguageModel
from pipeline.model.quantize import (
    ACTIVATIONS,
    Int8Weight,
    largest_activation,
    measure,
    quantize,
    quantize_and_measure,
)
from tests.streams import Asking, question
from tests.tiny_folder import write_folder
from tests.tiny_model import Tiny, random_ids, tiny_model

SHAPES = {
    "untied": Tiny(seed=5, num_heads=8, head_dim=32, intermediate_size=512),
    "tied": Tiny(seed=5, num_heads=8, head_dim=32, intermediate_size=512, tied=True),
}
MASSIVE = 300  # times an ordinary value, in one channel of some rows


def ordinary_model(shape: Tiny) -> LanguageModel:
    """With weights of variance 1 / inputs; `tiny_model` doubles them to amplify errors."""
    model = tiny_model(shape).language
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5 if parameter.ndim > 1 else 1.0)
    return model


def massive_model(shape: Tiny) -> LanguageModel:
    """With the two ways of real models: a channel that is massive from the first layer on, which
    norms damp, and tokens that are massive in it from the beginning."""
    model = ordinary_model(shape)
    with torch.no_grad():
        model.layers[0].mlp.down_proj.weight[3] *= MASSIVE
        for layer in model.layers[1:]:
            layer.input_layernorm.weight[3] /= 10
            layer.post_attention_layernorm.weight[3] /= 10
        model.norm.weight[3] /= MASSIVE
        if not shape.tied:  # what is looked up is what scores, and no real model scores so
            table = model.embed_tokens.weight
            table[::8, 3] = MASSIVE * table.abs().median()
    return model


def rows(num_rows: int, width: int, *, massive: int = 0, seed: int = 0) -> Tensor:
    """Rows of noise; the first `massive` of them with one massive value."""
    x = torch.randn(num_rows, width, generator=torch.Generator().manual_seed(seed))
    x[:massive, 3] = MASSIVE
    return x


def weight(largest: int) -> tuple[Tensor, Int8Weight]:
    exact = rows(96, 256, seed=1) / 16
    return exact, Int8Weight(exact, largest=largest)


def errors(got: Tensor, expected: Tensor) -> Tensor:
    """Of each row, relative to its length."""
    return (got - expected).norm(dim=1) / expected.norm(dim=1)


# --- one product


@pytest.mark.parametrize("largest", {largest_activation(), min(ACTIVATIONS)})
@pytest.mark.parametrize("massive", [0, 1, 5])
def test_a_row_is_the_same_whoever_comes_with_it(largest, massive):
    _, packed = weight(largest)
    x = rows(37, 256, massive=massive)
    together = packed.multiply(x)
    assert all(torch.equal(packed.multiply(x[i : i + 1])[0], together[i]) for i in range(len(x)))
    assert torch.equal(packed.multiply(x.flip(0)), together.flip(0))


@pytest.mark.parametrize("largest", {largest_activation(), min(ACTIVATIONS)})
def test_massive_rows_and_their_neighbours_are_as_close_as_others(largest):
    exact, packed = weight(largest)
    x = rows(8, 256, massive=3)
    assert errors(packed.multiply(x), x @ exact.T).max() < (0.02 if largest == 127 else 0.03)


def test_what_a_product_is_added_to_is_added_as_it_is():
    _, packed = weight(largest_activation())
    x, start = rows(5, 256, massive=1), rows(5, 96, seed=2)
    torch.testing.assert_close(packed.multiply(x, start), start + packed.multiply(x))


def test_small_values_of_a_massive_row_are_not_lost():
    """One byte for all would round everything but the massive value to nothing."""
    exact, packed = weight(largest_activation())
    exact[:, 3] = 0  # which is all that one byte would leave
    packed = Int8Weight(exact, largest=largest_activation())
    x = rows(4, 256, massive=4)
    assert errors(packed.multiply(x), x @ exact.T).max() < 0.05


@pytest.mark.parametrize("row", [0.0, float("nan"), float("inf"), 1e-45, 1e38], ids=str)
def test_rows_at_the_ends_of_float32_come_out_as_such_and_leave_the_others(row):
    exact, packed = weight(largest_activation())
    x = rows(3, 256)
    alone = packed.multiply(x[1:])
    x[0] = row
    y = packed.multiply(x)
    assert torch.equal(y[1:], alone)
    if row == 0.0:
        assert not y[0].any()
    elif row in (1e38, 1e-45):
        assert y[0].isfinite().all() == (x[:1] @ exact.T).isfinite().all()
    else:
        assert not y[0].isfinite().any()


def test_without_vnni_activations_have_seven_bits_and_sums_are_right():
    """oneDNN told to forget what the CPU has beyond AVX2: eight bits would overflow there."""
    code = (
        "import torch\n"
        "from tests.unit.test_quantize import *\n"
        "largest = largest_activation()\n"
        "x = rows(8, 256, massive=3)\n"
        "exact, packed = weight(largest)\n"
        "print(largest, float(errors(packed.multiply(x), x @ exact.T).max()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    largest, error = run.stdout.split()
    assert int(largest) in ACTIVATIONS
    assert float(error) < 0.03


# --- a model


@pytest.mark.parametrize("make", [ordinary_model, massive_model])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_int8_logits_are_close_to_the_exact_ones(shape: Tiny, make):
    exact, quick = make(shape), make(shape)
    quantize(quick)
    error = measure(exact, quick, random_ids(64))
    assert 0.0 < error.relative < (0.03 if make is ordinary_model else 0.08)
    assert error.agreement > 0.9
    assert "%" in str(error)


def test_a_model_is_measured_against_what_it_was():
    ids = random_ids(64)
    exact, quick = (massive_model(SHAPES["tied"]) for _ in range(2))
    quantize(quick)
    assert quantize_and_measure(massive_model(SHAPES["tied"]), ids) == measure(exact, quick, ids)


def test_the_check_says_what_int8_costs_a_checkpoint_of_ones_own(tmp_path):
    console = Console(file=StringIO(), width=200)
    assert (
        model_check.run(write_folder(tmp_path / "model"), console, Console(quiet=True), int8=True)
        == 0
    )
    assert re.search(
        r"int8: logits off by \d+\.\d%, same likeliest token in \d+\.\d% of \d{3}",
        console.file.getvalue(),
    )


def test_a_model_is_as_close_to_itself_as_can_be():
    model = tiny_model(SHAPES["tied"]).language
    error = measure(model, model, random_ids(16))
    assert (error.relative, error.agreement) == (0.0, 1.0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_exact_weights_are_freed_except_the_embedding_table(shape: Tiny):
    model = tiny_model(shape).language
    table = model.embed_tokens.weight.numel()
    before = sum(parameter.numel() for parameter in model.parameters())
    quantize(model)
    after = sum(parameter.numel() for parameter in model.parameters())
    assert table < after < table + 0.02 * before


def test_answers_of_an_int8_model_do_not_depend_on_who_asks_with_them():
    model = tiny_model(SHAPES["untied"])
    with torch.no_grad():
        model.language.embed_tokens.weight[::8, 3] = MASSIVE
    quantize(model.language)
    stream = Asking(model).open([])
    questions = [question(num, seed=num, max_new_tokens=12) for num in (5, 9, 17, 8)]
    together = stream.ask_many(questions)
    assert together == [stream.ask(each) for each in questions]


def test_half_precision_models_keep_their_dtype():
    model = tiny_model(SHAPES["untied"]).language.to(torch.bfloat16)
    quantize(model)
    assert model.logits(torch.ones(1, model.config.hidden_size, dtype=torch.bfloat16)).dtype == (
        torch.bfloat16
    )


def test_int8_is_refused_without_kernels_and_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    model = tiny_model(SHAPES["untied"]).language
    monkeypatch.setattr(int8, "_sums_are_whole", lambda largest: False)
    largest_activation.cache_clear()
    with pytest.raises(ConfigError, match="int8"):
        quantize(model)
    assert measure(model, tiny_model(SHAPES["untied"]).language, random_ids(8)).relative == 0.0
