"""Stages share cores: threads where they pay, and brief spinning unless the user says otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.cores import CACHED_WEIGHTS, PRODUCTS_PER_THREAD, use_threads
from pipeline.engine.step import Addition, num_products
from pipeline.families.qwen2_vl.model import Qwen2VL
from tests.tiny_model import Tiny, tiny_model

LIMITS = ("GOMP_SPINCOUNT", "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


@pytest.mark.parametrize(
    ("num_weights", "num_products", "num_threads"),
    [
        (1_000, 0, 1),
        (1_000, 2 * PRODUCTS_PER_THREAD - 1, 1),
        (1_000, 2 * PRODUCTS_PER_THREAD, 2),
        (1_000, 100 * PRODUCTS_PER_THREAD, 3),
        (CACHED_WEIGHTS + 1, 1, 3),
    ],
)
def test_a_small_step_leaves_cores_to_others(num_weights: int, num_products: int, num_threads: int):
    before = torch.get_num_threads()
    try:
        use_threads(3, num_weights=num_weights, num_products=num_products)
        assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)


def addition(model: Qwen2VL, num_tokens: int, *, after: int) -> Addition:
    language = model.language
    cache = language.new_cache(after + num_tokens)
    cache.advance(after)
    size = language.config.hidden_size
    return Addition(cache, torch.empty(num_tokens, size), torch.empty(3, num_tokens))


def test_products_are_counted_with_what_is_attended_to():
    model = tiny_model(Tiny(seed=5))
    config, weights = model.language.config, model.language.num_weights
    key = 2 * config.num_layers * config.num_heads * config.head_dim
    additions = [addition(model, 4, after=10), addition(model, 1, after=100)]
    assert num_products(model.language, additions) == 5 * weights + (4 * 12 + 100) * key


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "5000 128 128"),
        ({"GOMP_SPINCOUNT": "7", "LRU_CACHE_CAPACITY": "9"}, "7 128 9"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "None 128 128"),
    ],
)
@pytest.mark.parametrize("package", ["jobs", "actors"])
def test_limits_are_set_before_torch_is_loaded(given: dict[str, str], expected: str, package: str):
    gone = (*LIMITS, "OMP_WAIT_POLICY")
    kept = {name: value for name, value in os.environ.items() if name not in gone}
    script = (
        f"import {package}, os, sys; assert 'torch' not in sys.modules; "
        f"print(*map(os.environ.get, {LIMITS}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=kept | given,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected
