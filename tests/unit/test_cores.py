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

LIMITS = (
    "GOMP_SPINCOUNT",
    "THP_MEM_ALLOC_ENABLE",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
    "LRU_CACHE_CAPACITY",
)


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
    return Addition(cache, range(num_tokens), torch.empty(3, num_tokens))


def test_products_are_counted_with_what_is_attended_to():
    model = tiny_model(Tiny(seed=5))
    config, weights = model.language.config, model.language.num_weights
    key = 2 * config.num_layers * config.num_heads * config.head_dim
    additions = [addition(model, 4, after=10), addition(model, 1, after=100)]
    assert num_products(model.language, additions) == 5 * weights + (4 * 12 + 100) * key


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "5000 1 128 128"),
        ({"GOMP_SPINCOUNT": "7", "LRU_CACHE_CAPACITY": "9"}, "7 1 128 9"),
        ({"THP_MEM_ALLOC_ENABLE": "0"}, "5000 0 128 128"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "None 1 128 128"),
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


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
WEIGHTS = """
import jobs, torch

weights = torch.ones(8 << 20)
print(next(line for line in open("/proc/self/smaps_rollup") if "AnonHuge" in line).split()[1])
"""


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(),
    reason="this kernel gives no huge pages",
)
def test_large_tensors_lie_in_huge_pages():
    done = subprocess.run(
        [sys.executable, "-c", WEIGHTS],
        env={k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) > 16 << 10  # kB of 32 << 10; some pages may be short of neighbours


TEAMS = """
import os, torch
from pipeline.cores import in_passing

def num_threads():
    return len(os.listdir("/proc/self/task"))

def compute():
    torch.ones(2_000_000).exp()
    return num_threads()

torch.set_num_threads(3)
before = num_threads()
print(in_passing(compute) - before)
while num_threads() > before:  # for ever, if the team stays
    os.sched_yield()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_what_is_computed_in_passing_leaves_no_team_of_threads_behind():
    done = subprocess.run(
        [sys.executable, "-c", TEAMS], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) == 3
