"""A word that is alone, by compiled code: what the model's own layers give, whoever computes it."""

import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from platform import machine

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.engine.cache import KVCache
from pipeline.families.qwen2_vl.positions import text_positions
from pipeline.model import word_kernels as kernels
from pipeline.model import word_pass
from pipeline.model.language import LanguageModel, Segment
from pipeline.model.machine_code import HAS_VNNI
from pipeline.model.packed_weights import pack
from pipeline.model.quantize import Int8Weight, largest_activation, quantize
from pipeline.model.word_pass import WordPass
from tests.tiny_model import Tiny, random_ids, relative_error, tiny_model

WHOLE = Tiny(
    seed=3, num_heads=4, num_kv_heads=2, head_dim=16, intermediate_size=128, vocab_size=320
)
SHAPES = {
    "grouped": WHOLE,
    "a head each": replace(WHOLE, num_kv_heads=4),
    "one for all": replace(WHOLE, num_kv_heads=1, head_dim=32),
    "tied": replace(WHOLE, tied=True),
    "wider": replace(WHOLE, num_heads=6, head_dim=32, intermediate_size=320),
}
PREPARE = {
    "row by row": lambda language: pack(language, min_elements=1 << 40),
    "packed": lambda language: pack(language, min_elements=1),
    "int8": quantize,
}
CLOSE = {"row by row": 1e-5, "packed": 1e-5, "int8": 2e-3}  # values may be rounded otherwise


# What oneDNN keeps of bytes beside AMX's tiles was never looked at.
LIES_AS_KNOWN = {
    "row by row": True,
    "packed": machine() == "x86_64",
    "int8": HAS_VNNI and largest_activation() == 127 and not torch.cpu._is_amx_tile_supported(),
}


def prepared(shape: Tiny, how: str) -> LanguageModel:
    """Skips where oneDNN lays such weights out in another way."""
    if not LIES_AS_KNOWN[how]:
        pytest.skip(f"{how} on {machine()}, VNNI: {HAS_VNNI}")
    language = tiny_model(shape).language
    PREPARE[how](language)
    return language


def filled(language: LanguageModel, num_tokens: int, *, forks: int = 0) -> KVCache:
    """A cache of so many random tokens and then of forks with three tokens each."""
    cache = language.new_cache(num_tokens + 5)
    run(language, cache, torch.tensor(random_ids(num_tokens)))
    for _ in range(forks):
        cache = cache.fork(capacity=8)
        run(language, cache, torch.tensor(random_ids(3)))
    return cache


def run(language: LanguageModel, cache: KVCache, ids: Tensor) -> Tensor:
    """Scores (1, V) after the last of them."""
    with torch.inference_mode():
        positions = text_positions(cache.length, len(ids))
        segments = [Segment(cache, len(ids), 1)]
        return language.logits(language(language.embed(ids), positions, segments))


def words(language: LanguageModel, cache: KVCache) -> Tensor:
    """Scores after each of four tokens: (4, V)."""
    return torch.cat([run(language, cache, torch.tensor([word])) for word in (7, 1, 8, 2)])


def without_kernels(language: LanguageModel) -> LanguageModel:
    language._word_pass = None
    return language


def assert_close(got: Tensor, expected: Tensor, relative: float) -> None:
    assert relative_error(got, expected) <= relative


@pytest.fixture
def num_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_threads", [1, 2, 3, 7], indirect=True)
@pytest.mark.parametrize("how", PREPARE)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_words_are_those_of_the_layers(shape, how, num_threads, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    language = prepared(shape, how)
    assert language._word_pass is not None
    got = words(language, filled(language, 150))
    expected = words(without_kernels(language), filled(language, 150))
    assert_close(got, expected, CLOSE[how])


@pytest.mark.parametrize("num_threads", [1], indirect=True)  # with many, blocks may be of 16
@pytest.mark.parametrize("how", PREPARE)
@pytest.mark.parametrize("vocab_size", [301, 319])
def test_a_vocabulary_may_end_within_a_block(vocab_size, how, num_threads):
    language = prepared(replace(WHOLE, vocab_size=vocab_size), how)
    assert language._word_pass is not None
    got = words(language, filled(language, 20))
    assert got.shape == (4, vocab_size)
    assert_close(got, words(without_kernels(language), filled(language, 20)), CLOSE[how])


@pytest.mark.parametrize("how", PREPARE)
def test_keys_and_values_of_words_are_those_of_the_layers(how):
    language = prepared(WHOLE, how)
    caches = []
    for model in (language, without_kernels(language)):
        caches.append(filled(language, 20))
        words(model, caches[-1])
    got, expected = (cache.room(0) for cache in caches)
    assert_close(got, expected, CLOSE[how])
    assert caches[0].length == caches[1].length == 24


@pytest.mark.parametrize("forks", [1, 2, 3])
def test_what_a_cache_continues_is_read_where_it_lies(forks):
    language = prepared(WHOLE, "packed")
    got = words(language, filled(language, 70, forks=forks))
    expected = words(without_kernels(language), filled(language, 70, forks=forks))
    assert_close(got, expected, CLOSE["packed"])


def test_a_cache_that_continues_too_many_others_is_left_to_the_layers():
    language = prepared(WHOLE, "packed")
    deepest = filled(language, 5, forks=kernels.MAX_PIECES - 1)
    too_deep = filled(language, 5, forks=kernels.MAX_PIECES)
    alone = language._word_pass
    assert alone is not None
    assert alone.cache_of([Segment(deepest, 1)]) is deepest
    assert alone.cache_of([Segment(too_deep, 1)]) is None
    got = words(language, too_deep)
    expected = words(without_kernels(language), filled(language, 5, forks=kernels.MAX_PIECES))
    assert_close(got, expected, CLOSE["packed"])


@pytest.mark.parametrize(
    "segments",
    [
        lambda cache: [Segment(cache, 2)],
        lambda cache: [Segment(cache, 1), Segment(cache, 1)],
        lambda cache: [Segment(None, 1)],
        lambda cache: [Segment(cache, 1, 0)],
    ],
    ids=["two rows", "two caches", "no cache", "no word wanted"],
)
def test_everything_else_is_left_to_the_layers(segments):
    language = prepared(WHOLE, "packed")
    assert language._word_pass is not None
    assert language._word_pass.cache_of(segments(language.new_cache(4))) is None


def test_a_word_more_than_a_cache_holds_is_refused_and_changes_nothing():
    language = prepared(WHOLE, "packed")
    cache = language.new_cache(6)
    run(language, cache, torch.tensor(random_ids(6)))
    before = cache.room(0).clone()
    with pytest.raises(ValueError, match="6 tokens can't take 7"):
        run(language, cache, torch.tensor([1]))
    assert cache.length == 6
    assert torch.equal(cache.room(0), before)


def int8_products(weight: Int8Weight, x: Tensor) -> Tensor:
    matrix = word_pass._tried(weight.matrix(None), weight.multiply)
    assert matrix is not None
    y = torch.empty(-(-matrix.num_outputs // kernels.BLOCK) * kernels.BLOCK)
    own = np.zeros(kernels.own_floats(matrix.num_inputs, 0, 0), np.float32)
    kernels.multiply(word_pass._records([matrix]), x.numpy(), y.numpy(), own)
    return y[: matrix.num_outputs]


@pytest.mark.skipif(not LIES_AS_KNOWN["int8"], reason="this CPU has no VNNI")
@pytest.mark.parametrize("num_threads", [1, 8], indirect=True)  # oneDNN's blocks are 64, 32 wide
@pytest.mark.parametrize("outputs", [64, 192, 301])
@pytest.mark.parametrize(
    "row",
    [
        lambda width: torch.randn(width),
        lambda width: torch.randn(width) * torch.where(torch.arange(width) == 5, 300.0, 1.0),
        lambda width: torch.zeros(width),
        lambda width: torch.full((width,), 1e-45),
        lambda width: torch.full((width,), 3e38),
        lambda width: torch.full((width,), -7.0),
        lambda width: torch.randn(width).index_fill(0, torch.tensor([3]), torch.nan),
        lambda width: torch.randn(width).index_fill(0, torch.tensor([3]), torch.inf),
    ],
    ids=["ordinary", "massive", "zero", "least", "most", "constant", "NaN", "infinite"],
)
def test_int8_products_are_the_layers_to_the_last_bit(row, outputs, num_threads):
    torch.manual_seed(outputs)
    weight = Int8Weight(torch.randn(outputs, 256), largest=largest_activation())
    x = row(256)
    expected = weight.multiply(x.unsqueeze(0))[0]
    assert torch.equal(int8_products(weight, x).isnan(), expected.isnan())
    assert torch.equal(int8_products(weight, x).nan_to_num(), expected.nan_to_num())


def test_scores_that_are_no_numbers_stay_so():
    language = prepared(WHOLE, "packed")
    cache = filled(language, 5)
    cache.room(0)[0, 0, 0, 2] = torch.nan
    assert run(language, cache, torch.tensor([1])).isnan().all()


@pytest.mark.parametrize(
    "shape",
    [replace(WHOLE, intermediate_size=96), replace(WHOLE, num_heads=3, num_kv_heads=3)],
    ids=["features", "hidden size"],
)
def test_layers_that_are_not_of_whole_blocks_compute_their_words_themselves(shape):
    language = prepared(shape, "packed")
    assert language._word_pass is None
    assert words(language, filled(language, 9)).isfinite().all()


@pytest.mark.parametrize("how", ["packed", "int8"])
def test_weights_that_lie_in_another_way_are_not_trusted(how, monkeypatch):
    language = prepared(WHOLE, how)
    one, other = (layer.mlp.down_proj for layer in language.layers)
    elsewhere = replace(one.matrix(), address=other.matrix().address)
    monkeypatch.setattr(one, "matrix", lambda: elsewhere)
    assert WordPass.of(language) is None


def test_threads_may_take_turns_with_one_model():
    language = prepared(WHOLE, "packed")
    expected = words(language, filled(language, 40))
    caches = [filled(language, 40) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda cache: words(language, cache), caches):
            assert_close(got, expected, 1e-5)


@pytest.mark.parametrize("num_threads", [3], indirect=True)
def test_its_threads_end_with_the_model(num_threads, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    before = set(threading.enumerate())
    language = prepared(WHOLE, "packed")
    words(language, filled(language, 9))
    own = {thread for thread in threading.enumerate() if thread.name == "word"} - before
    assert len(own) == num_threads - 1
    del language
    gc.collect()
    assert not any(thread.is_alive() for thread in own)


@pytest.mark.parametrize("num_threads", [3], indirect=True)
def test_fewer_threads_go_on_where_more_began(num_threads, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    language = prepared(WHOLE, "packed")
    cache = filled(language, 30)
    got = [run(language, cache, torch.tensor([7]))]
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        got.append(run(language, cache, torch.tensor([1])))
    without_kernels(language)
    cache = filled(language, 30)
    expected = [run(language, cache, torch.tensor([word])) for word in (7, 1, 1, 1)]
    assert_close(torch.cat(got), torch.cat(expected), 1e-5)


@pytest.mark.parametrize("num_threads", [3], indirect=True)
def test_words_go_on_where_threads_have_ended_or_cannot_start(num_threads, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    language = prepared(WHOLE, "packed")
    expected = words(language, filled(language, 30))
    language._word_pass._team._end()  # as Python's end does
    assert_close(words(language, filled(language, 30)), expected, 1e-5)
    again = prepared(WHOLE, "packed")

    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert_close(words(again, filled(again, 30)), expected, 1e-5)
    assert_close(words(again, filled(again, 30)), expected, 1e-5)


def test_a_forked_process_computes_its_words_alone():
    language = prepared(WHOLE, "packed")
    words(language, filled(language, 30))
    language._word_pass._team._process = -1  # of its parent
    assert words(language, filled(language, 30)).isfinite().all()
    assert language._word_pass._job["num_threads"] == 1


@pytest.mark.parametrize("error", [ImportError("Numba needs NumPy 2.4 or less"), OSError("disk")])
def test_without_a_compiler_words_are_computed_as_before(error, monkeypatch, caplog):
    def fail(model):
        raise error

    monkeypatch.setattr(WordPass, "of", fail)
    language = prepared(WHOLE, "packed")
    assert language._word_pass is None
    assert str(error) in caplog.text
    assert words(language, filled(language, 30)).isfinite().all()


def test_a_process_that_ends_in_mid_word_ends(tmp_path):
    script = tmp_path / "ends.py"
    script.write_text(ENDS_IN_MID_WORD, "utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    run = subprocess.run([sys.executable, script], cwd=ROOT, env=environment, timeout=100)
    assert run.returncode == 0


ROOT = Path(__file__).parents[2]
ENDS_IN_MID_WORD = """
import atexit, os, threading, sys
sys.path.insert(0, os.getcwd())
os.cpu_count = lambda: 8
from tests.unit.test_word_pass import WHOLE, filled, prepared, words
language = prepared(WHOLE, "row by row")
began = threading.Event()
def go_on():
    while True:
        words(language, filled(language, 9))
        began.set()
threading.Thread(target=go_on, daemon=True).start()
began.wait()
atexit._run_exitfuncs()  # as jobs/exits.py leaves while others are at work
os._exit(0)
"""
