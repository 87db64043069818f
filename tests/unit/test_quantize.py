"""The int8 mode: close to the exact model, and refused where it can't run."""

import pytest
import torch

from pipeline.config import Sampling
from pipeline.engine.commands import BeginGeneration, OpenStream, Step
from pipeline.engine.ids import GenerationId
from pipeline.engine.question import Question
from pipeline.engine.rank import Rank
from pipeline.errors import ConfigError
from pipeline.model.language import LanguageModel
from pipeline.model.quantize import measure, quantize
from tests.streams import stream_id
from tests.tiny_model import Tiny, random_ids, tiny_model
from tests.tiny_tokenizer import tiny_tokenizer

SHAPES = {
    "untied": Tiny(seed=5, num_heads=8, head_dim=32, intermediate_size=512),
    "tied": Tiny(seed=5, num_heads=8, head_dim=32, intermediate_size=512, tied=True),
}


def ordinary_model(shape: Tiny) -> LanguageModel:
    """With weights of variance 1 / inputs; `tiny_model` doubles them to amplify errors."""
    model = tiny_model(shape).language
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5 if parameter.ndim > 1 else 1.0)
    return model


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_int8_logits_are_close_to_the_exact_ones(shape: Tiny):
    exact, quick = ordinary_model(shape), ordinary_model(shape)
    quantize(quick)
    error = measure(exact, quick, random_ids(64))
    assert 0.0 < error.relative < 0.06
    assert error.agreement > 0.85
    assert "%" in str(error)


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


def test_the_engine_writes_with_an_int8_model():
    shape = SHAPES["untied"]
    model = tiny_model(shape).language
    quantize(model)
    rank = Rank(model, tiny_tokenizer(shape), eos_ids=[shape.config.vocab_size - 6])
    stream, names = stream_id(0), [GenerationId(stream_id(0), number) for number in (0, 1)]
    rank.control(OpenStream(stream, ()))
    for name, length in zip(names, (5, 9), strict=True):
        asked = Question(
            ids=tuple(random_ids(length, seed=length)), sampling=Sampling(max_new_tokens=3)
        )
        rank.control(BeginGeneration(name, asked, is_alone=False))
    written = [rank.run([Step(generations=tuple(names))]).written for _ in range(3)]
    assert all(said is not None and not said.error for _, _, said in written[-1])


def test_half_precision_models_keep_their_dtype():
    model = tiny_model(SHAPES["untied"]).language.to(torch.bfloat16)
    quantize(model)
    assert model.logits(torch.ones(1, model.config.hidden_size, dtype=torch.bfloat16)).dtype == (
        torch.bfloat16
    )


def test_int8_is_refused_without_kernels_and_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    model = tiny_model(SHAPES["untied"]).language
    monkeypatch.setattr(torch.backends.quantized, "engine", "qnnpack")
    with pytest.raises(ConfigError, match="int8"):
        quantize(model)
    monkeypatch.undo()
    assert measure(model, tiny_model(SHAPES["untied"]).language, random_ids(8)).relative == 0.0
