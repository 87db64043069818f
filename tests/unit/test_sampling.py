"""How the next token is chosen: the rules, the random numbers, and what a broken model does."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pipeline.config import Sampling
from pipeline.engine.sampler import Sampler, next_tokens
from pipeline.errors import BadInput, ConfigError, FailureCode

V = 50
NAN, INF = float("nan"), float("inf")


def scores(seed: int = 0, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * 3


def draw(sampling: Sampling, logits: torch.Tensor, times: int) -> torch.Tensor:
    """How often each token is chosen, (V)."""
    sampler = Sampler(sampling)
    chosen = [next_tokens(logits, [sampler])[0] for _ in range(times)]
    return torch.bincount(torch.tensor(chosen), minlength=V)


GREEDY = [Sampling(), Sampling(temperature=1.0, top_k=1), Sampling(temperature=1e-300)]


@pytest.mark.parametrize("sampling", GREEDY, ids=["by default", "top-k of 1", "tiny temperature"])
def test_greedy_takes_the_largest(sampling):
    logits = scores(rows=3)
    assert next_tokens(logits, [Sampler(sampling) for _ in range(3)]) == logits.argmax(-1).tolist()


@pytest.mark.parametrize(
    "knobs",
    [
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 7},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.6},
        {"temperature": 1.0, "top_p": 1e-9},
        {"temperature": 2e-5},
    ],
    ids=str,
)
def test_draws_follow_the_distribution_that_transformers_would_draw_from(knobs):
    warpers = LogitsProcessorList([TemperatureLogitsWarper(knobs["temperature"])])
    if "top_k" in knobs:
        warpers.append(TopKLogitsWarper(knobs["top_k"]))
    if "top_p" in knobs:
        warpers.append(TopPLogitsWarper(knobs["top_p"]))
    logits, times = scores(), 4_000
    expected = warpers(torch.zeros(1, 0, dtype=torch.long), logits.clone())[0].softmax(0)
    seen = draw(Sampling(**knobs), logits, times) / times
    assert (seen > 0).logical_and(expected == 0).sum() == 0  # nothing outside top-k and top-p
    deviation = (expected * (1 - expected) / times).sqrt()
    assert ((seen - expected).abs() <= 5 * deviation + 1e-3).all()


@pytest.mark.parametrize("penalty", [0.5, 1.05, 3.0])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
    logits, prompt = scores(), [3, 8, 8, 21]
    sampler = Sampler(Sampling(repetition_penalty=penalty), prompt_ids=prompt)
    theirs, ids = RepetitionPenaltyLogitsProcessor(penalty), list(prompt)
    for seed in range(10):
        logits = scores(seed)
        expected = int(theirs(torch.tensor([ids]), logits.clone()).argmax())
        ids.append(expected)
        assert next_tokens(logits, [sampler]) == [expected]


def test_a_seed_gives_the_same_tokens_whoever_shares_the_batch():
    knobs = Sampling(temperature=1.0, seed=7)
    alone = Sampler(knobs)
    expected = [next_tokens(scores(step), [alone])[0] for step in range(20)]
    mine, others = Sampler(knobs), [Sampler(Sampling(temperature=1.0, seed=i)) for i in range(3)]
    together = []
    for step in range(20):
        batch = torch.cat((scores(100 + step, rows=3), scores(step)))
        together.append(next_tokens(batch, [*others, mine])[3])
    assert together == expected


def test_different_seeds_give_different_tokens():
    runs = {
        tuple(next_tokens(scores(step), [sampler])[0] for step in range(20))
        for sampler in (Sampler(Sampling(temperature=1.0, seed=seed)) for seed in range(5))
    }
    assert len(runs) == 5


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=1.0)], ids=["greedy", "drawn"]
)
def test_logits_that_are_not_finite_fail_their_own_request_only(broken, sampling):
    logits = scores(rows=3)
    logits[1, 5] = broken
    first, bad, last = next_tokens(logits, [Sampler(sampling) for _ in range(3)])
    assert isinstance(bad, BadInput)
    assert bad.code is FailureCode.NONFINITE_LOGITS
    neighbours = [next_tokens(logits[i : i + 1], [Sampler(sampling)])[0] for i in (0, 2)]
    assert [first, last] == neighbours


def test_half_precision_logits_are_not_mistaken_for_infinite():
    logits = torch.full((1, 4096), 60_000.0, dtype=torch.float16)  # the sum overflows float16
    assert next_tokens(logits, [Sampler(Sampling())]) == [0]


def test_choosing_leaves_the_logits_alone():
    logits = scores()
    before = logits.clone()
    knobs = Sampling(temperature=0.5, top_k=5, repetition_penalty=2.0)
    next_tokens(logits, [Sampler(knobs, prompt_ids=range(V))])
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    "knobs",
    [
        {"temperature": -0.1},
        {"temperature": NAN},
        {"temperature": INF},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
        {"max_new_tokens": 0},
        {"max_new_tokens": 1_000_000},
    ],
    ids=str,
)
def test_knobs_out_of_range_are_refused_by_name(knobs):
    with pytest.raises(ConfigError, match=next(iter(knobs))):
        Sampling(**knobs)
