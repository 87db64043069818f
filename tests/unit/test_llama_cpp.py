"""The peer of the bench is given our own weights: llama.cpp refuses tensors of another shape."""

from dataclasses import replace

import pytest

from jobs.lab.bench.llama_cpp import LlamaCpp, has_llama_cpp, write_q8_0
from tests.tiny_model import Tiny, tiny_model

TINY = Tiny(num_heads=4, num_kv_heads=2, head_dim=16, intermediate_size=128, vocab_size=320)


@pytest.mark.skipif(not has_llama_cpp(), reason="llama.cpp has no wheel for this machine")
@pytest.mark.parametrize("shape", [TINY, replace(TINY, tied=True)], ids=["untied", "tied"])
def test_it_loads_what_is_written_for_it_and_answers(shape, tmp_path):
    write_q8_0(tiny_model(shape).language, tmp_path / "tiny.gguf")
    assert LlamaCpp(tmp_path / "tiny.gguf").word_seconds((1, 2, 3), 4) > 0
