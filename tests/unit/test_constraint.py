"""What a constrained answer can and can't be, and what a bad constraint costs."""

import json
import time

import pytest
import torch
from llguidance import LLParserLimits
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from pipeline.engine import constraint
from pipeline.engine.constraint import (
    MAX_CHARACTERS,
    MAX_CHOICES,
    Choices,
    Constraint,
    ConstraintCompiler,
    JsonSchema,
    require_usable,
)
from pipeline.errors import BadInput, ConfigError, FailureCode

EOS = 256  # after the 256 tokens of one byte each
PADDED_VOCAB = 264  # checkpoints pad their vocabulary
RECORD = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "c": {"enum": ["r", "b"]},
    },
    "required": ["count", "c"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A byte-level tokenizer without merges: one token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    return tokenizer


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> ConstraintCompiler:
    return ConstraintCompiler(tokenizer.to_str(), eos_ids=[EOS])


@pytest.fixture
def write(tokenizer: Tokenizer, compiler: ConstraintCompiler):
    """Write an answer under a constraint with a model that babbles at random."""

    def run(constraint: Constraint, *, seed: int, max_tokens: int = 100) -> str:
        random = torch.Generator().manual_seed(seed)
        matcher, written = compiler.start(constraint), []
        while len(written) < max_tokens and not matcher.is_complete:
            scores = matcher.restrict(torch.randn(PADDED_VOCAB, generator=random))
            token = int(scores.argmax())
            if token == EOS:
                break
            matcher.take(token)
            written.append(token)
        return tokenizer.decode(written)

    return run


CHOICES = ("yes", "no", "yes please", 'naïve "q" \\ \n\x01', "日本", "<|im_end|>")


def test_a_babbling_model_can_only_write_the_choices(write):
    answers = {write(Choices(CHOICES), seed=seed) for seed in range(60)}
    assert answers == set(CHOICES)


def test_a_choice_that_starts_another_can_end_there(write):
    answers = {write(Choices(("yes", "yes please")), seed=seed) for seed in range(200)}
    assert answers == {"yes", "yes please"}


@pytest.mark.parametrize("seed", range(8))
def test_json_under_a_schema_is_always_valid(write, seed):
    answer = json.loads(write(JsonSchema(json.dumps(RECORD)), seed=seed))
    assert set(answer) == {"count", "c"}
    assert answer["count"] in range(10)
    assert answer["c"] in ("r", "b")


def test_ids_beyond_the_tokenizer_are_never_allowed(compiler):
    matcher = compiler.start(Choices(("a",)))
    scores = matcher.restrict(torch.zeros(PADDED_VOCAB))
    assert scores.shape == (PADDED_VOCAB,)
    assert scores.isfinite().nonzero().numel() == 1


def test_restricting_leaves_the_scores_alone(compiler):
    scores = torch.zeros(PADDED_VOCAB)
    compiler.start(Choices(("a",))).restrict(scores)
    assert scores.isfinite().all()


BAD_SCHEMAS = {
    "cut off": "{",
    "a list": "[]",
    "a number": "3",
    "an unknown type": '{"type":"nope"}',
    "an unknown keyword": '{"not":{}}',
    "a remote reference": '{"$ref":"http://127.0.0.1:9/x"}',
    "a file reference": '{"$ref":"file:///etc/passwd"}',
    "a dangling reference": '{"$ref":"#/a/b"}',
    "a broken pattern": '{"type":"string","pattern":"(("}',
    "a huge number": '{"type":"integer","minimum":1e400}',
    "a huge integer": '{"maximum":' + "9" * 5000 + "}",
    "nested too deep for the compiler": '{"items":' * 200 + "{}" + "}" * 200,
    "nested too deep for any parser": '{"a":' + "[" * 30_000 + "]" * 30_000 + "}",
    "too long": '{"title":"' + "x" * MAX_CHARACTERS + '"}',
    "nothing fits": '{"type":"integer","minimum":5,"maximum":1}',
    "not text": '{"title":"\ud800"}',
}


@pytest.mark.parametrize("text", BAD_SCHEMAS.values(), ids=BAD_SCHEMAS)
def test_a_bad_schema_is_the_requests_own_fault_and_is_found_fast(compiler, text):
    started = time.process_time()
    for look in (compiler.start, require_usable):
        with pytest.raises(BadInput) as caught:
            look(JsonSchema(text))
        assert caught.value.code is FailureCode.BAD_PROMPT
        assert len(caught.value.detail) < 300
        assert "\n" not in caught.value.detail
    assert time.process_time() - started < 2.0


def test_a_schema_that_is_a_list_is_refused_however_deep():
    for depth in (1, *range(800, 1100)):  # somewhere there it can be read and not be written
        with pytest.raises(BadInput, match="a schema"):
            JsonSchema("[" * depth + "]" * depth)


@pytest.mark.parametrize(
    "texts",
    [(), ("",), ("a", ""), ("x",) * (MAX_CHOICES + 1), ("x" * (MAX_CHARACTERS + 1),), ("\ud800",)],
    ids=["none", "empty", "one empty", "too many", "too long", "a lone surrogate"],
)
def test_bad_choices_are_the_requests_own_fault(compiler, texts):
    for look in (compiler.start, require_usable):
        with pytest.raises(BadInput) as caught:
            look(Choices(texts))
        assert caught.value.code is FailureCode.BAD_PROMPT


HARD_PATTERNS = ["^[ab]*a[ab]{3000}$", "^((((a?){99}){99}){99}){99}$", "^(.{0,3000}x){3000}$"]


@pytest.mark.parametrize("pattern", HARD_PATTERNS)
def test_a_pattern_that_would_explode_as_an_automaton_is_followed_in_bounded_time(write, pattern):
    started = time.process_time()
    schema = JsonSchema(json.dumps({"type": "string", "pattern": pattern}))
    assert write(schema, seed=0, max_tokens=50).startswith('"')
    assert time.process_time() - started < 10.0


@pytest.mark.parametrize("limit", ["step_max_items", "max_items_in_row"])
def test_a_constraint_that_runs_out_of_fuel_is_the_requests_own_fault(write, monkeypatch, limit):
    monkeypatch.setattr(constraint, "LIMITS", LLParserLimits(**{limit: 1}))
    items = [{"type": "string", "pattern": "^[ab]*a[ab]{9}$"}, {"type": "object"}]
    schema = JsonSchema(json.dumps({"type": "array", "items": {"anyOf": items}}))
    with pytest.raises(BadInput) as caught:
        write(schema, seed=0)
    assert caught.value.code is FailureCode.BAD_PROMPT


def test_a_tokenizer_that_is_not_one_is_the_operators_fault():
    with pytest.raises(ConfigError, match="tokenizer"):
        ConstraintCompiler("{}", eos_ids=[EOS])
