"""The language model: equal to the reference, whole or in chunks, alone or beside others."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pipeline.engine.cache import KVCache
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.families.qwen2_vl.positions import text_positions
from pipeline.model.language import LanguageModel, Segment
from tests.tiny_model import (
    Reference,
    Scene,
    Tiny,
    random_frames,
    random_ids,
    relative_error,
    tiny_model,
)

SCENES = {
    "text": Scene((random_ids(20),)),
    "image": Scene((random_ids(4), random_frames(1, 3, 2), random_ids(6, seed=1))),
    "video": Scene((random_ids(4), random_frames(8, 2, 3), random_ids(6, seed=1))),
    "long video": Scene((random_ids(4), random_frames(24, 2, 1), random_ids(6, seed=1))),
    "odd video": Scene((random_ids(4), random_frames(7, 2, 2), random_ids(6, seed=1))),
    "image and video": Scene(
        (random_ids(3), random_frames(1, 2, 2), [7], random_frames(4, 1, 2), random_ids(5))
    ),
    "two videos": Scene(
        (random_ids(3), random_frames(6, 1, 2), random_ids(2), random_frames(4, 2, 2), [8, 9])
    ),
}


def run(
    language: LanguageModel,
    cache: KVCache,
    embeddings: Tensor,
    positions: Tensor,
    sizes: Sequence[int],
) -> Tensor:
    """Hidden states of a prefill in chunks of the given sizes."""
    chunks = zip(
        torch.split(embeddings, list(sizes)), torch.split(positions, list(sizes), 1), strict=True
    )
    return torch.cat([language(e, p, [Segment(cache, len(e))]) for e, p in chunks])


def greedy(
    language: LanguageModel, cache: KVCache, hidden: Tensor, position: int, num_tokens: int
) -> list[int]:
    """Token by token through the cache, from the last hidden state (D)."""
    tokens: list[int] = []
    for index in range(num_tokens):
        tokens.append(int(language.logits(hidden[None])[0].argmax()))
        place = text_positions(position + index, 1)
        hidden = language(language.embed(torch.tensor(tokens[-1:])), place, [Segment(cache, 1)])[0]
    return tokens


@torch.inference_mode()
@pytest.mark.parametrize("name", SCENES)
def test_logits_equal_the_reference(reference: Reference, exact_model: Qwen2VL, name: str) -> None:
    scene, model = SCENES[name], exact_model
    embeddings = scene.embeddings(model)
    hidden = model.language(embeddings, scene.positions, [Segment(None, len(embeddings))])
    expected = reference.logits(reference.embeddings(scene), scene.positions)
    assert relative_error(model.language.logits(hidden), expected) < 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("name", ["text", "long video", "image and video"])
def test_64_greedy_tokens_equal_the_reference(
    reference: Reference, exact_model: Qwen2VL, name: str
) -> None:
    scene, model = SCENES[name], exact_model
    embeddings = scene.embeddings(model)
    cache = model.language.new_cache(len(embeddings) + 64)
    hidden = run(model.language, cache, embeddings, scene.positions, [len(embeddings)])
    tokens = greedy(model.language, cache, hidden[-1], scene.next_position, 64)
    assert tokens == reference.greedy(scene, 64)


@torch.inference_mode()
def test_prefill_in_chunks_equals_prefill_at_once(exact_model: Qwen2VL) -> None:
    scene, language = SCENES["long video"], exact_model.language
    embeddings, positions = scene.embeddings(exact_model), scene.positions
    start = scene.next_position
    cache = language.new_cache(100)
    whole = run(language, cache, embeddings, positions, [len(embeddings)])
    expected = language.logits(whole)
    continuation = greedy(language, cache, whole[-1], start, 64)
    for sizes in ((1,) * 34, (17, 17), (30, 4), (5, 1, 20, 1, 1, 6)):
        assert sum(sizes) == len(embeddings), sizes
        cache = language.new_cache(100)
        chunked = run(language, cache, embeddings, positions, sizes)
        logits = language.logits(chunked)
        assert relative_error(logits, expected) < 1e-5, sizes
        assert torch.equal(logits.argmax(-1), expected.argmax(-1)), sizes
        assert greedy(language, cache, chunked[-1], start, 64) == continuation, sizes


@pytest.fixture(scope="module")
def model() -> Qwen2VL:
    return tiny_model(Tiny(seed=12))


def prefilled(language: LanguageModel, num_tokens: int, *, seed: int) -> KVCache:
    cache = language.new_cache(64)
    if num_tokens == 0:
        return cache
    embeddings = language.embed(torch.tensor(random_ids(num_tokens, seed=seed)))
    language(embeddings, text_positions(0, num_tokens), [Segment(cache, num_tokens)])
    return cache


def continue_with(
    language: LanguageModel, caches: Sequence[KVCache], runs: Sequence[list[int]]
) -> list[Tensor]:
    """One flat batch: each cache takes its run of ids. Returns the logits of each run."""
    ids = torch.tensor([token for ids in runs for token in ids])
    places = [text_positions(c.length, len(r)) for c, r in zip(caches, runs, strict=True)]
    segments = [Segment(c, len(r)) for c, r in zip(caches, runs, strict=True)]
    hidden = language(language.embed(ids), torch.cat(places, dim=1), segments)
    return list(torch.split(language.logits(hidden), [len(r) for r in runs]))


RUNS = [random_ids(n, seed=20 + n) for n in (1, 7, 1, 4, 1)]


@torch.inference_mode()
def test_a_batch_of_prefills_and_decodes_equals_each_alone(model: Qwen2VL) -> None:
    lengths = (12, 0, 30, 5, 1)
    alone = [prefilled(model.language, n, seed=n) for n in lengths]
    together = [prefilled(model.language, n, seed=n) for n in lengths]
    batched = continue_with(model.language, together, RUNS)
    for cache, ids, logits in zip(alone, RUNS, batched, strict=True):
        (expected,) = continue_with(model.language, [cache], [ids])
        assert relative_error(logits, expected) < 1e-5
        assert torch.equal(logits.argmax(-1), expected.argmax(-1))


@torch.inference_mode()
def test_forked_questions_equal_each_asked_alone(model: Qwen2VL) -> None:
    language = model.language
    prefix = prefilled(language, 24, seed=1)
    forks = [prefix.fork(capacity=16) for _ in RUNS]
    batched = continue_with(language, forks, RUNS)
    answers = continue_with(language, forks, [[7]] * len(forks))  # one token each: the decode path
    for ids, question, answer in zip(RUNS, batched, answers, strict=True):
        alone = prefilled(language, 24, seed=1)
        for logits, run_of_ids in ((question, ids), (answer, [7])):
            (expected,) = continue_with(language, [alone], [run_of_ids])
            assert relative_error(logits, expected) < 1e-5
            assert torch.equal(logits.argmax(-1), expected.argmax(-1))


@torch.inference_mode()
def test_forks_of_several_videos_and_unforked_streams_mix_in_one_batch(model: Qwen2VL) -> None:
    language = model.language
    first, second = prefilled(language, 9, seed=3), prefilled(language, 15, seed=4)
    nested = first.fork(capacity=20)
    continue_with(language, [nested], [[5, 6, 7]])
    caches = [first.fork(capacity=9), second.fork(capacity=9), nested.fork(capacity=9), second]
    plain = [(9, 3, []), (15, 4, []), (9, 3, [5, 6, 7]), (15, 4, [])]
    for logits, ids, (length, seed, more) in zip(
        continue_with(language, caches, RUNS[:4]), RUNS[:4], plain, strict=True
    ):
        alone = prefilled(language, length, seed=seed)
        if more:
            continue_with(language, [alone], [more])
        (expected,) = continue_with(language, [alone], [ids])
        assert relative_error(logits, expected) < 1e-5


@torch.inference_mode()
def test_half_precision_stays_close_to_single(model: Qwen2VL) -> None:
    scene = SCENES["video"]
    half = tiny_model(Tiny(seed=12)).to(torch.bfloat16)
    sizes = [len(scene.positions[0]) - 6, 6]
    hidden = {
        m: run(m.language, m.language.new_cache(64), scene.embeddings(m), scene.positions, sizes)
        for m in (model, half)
    }
    assert hidden[half].dtype == torch.bfloat16
    assert relative_error(hidden[half].float(), hidden[model]) < 0.1


def test_gradients_equal_the_reference(default_reference: Reference) -> None:
    """Two sequences in one flat batch, without caches, as training runs."""
    language, oracle = default_reference.model.language, default_reference.oracle
    ids, positions = torch.tensor(random_ids(12, seed=8)), text_positions(0, 12)
    flat_positions = torch.cat([positions, positions], dim=1)
    both = torch.cat([ids, ids.flip(0)])
    hidden = language(language.embed(both), flat_positions, [Segment(None, 12), Segment(None, 12)])
    language.logits(hidden).logsumexp(-1).sum().backward()
    theirs = oracle(
        torch.stack([ids, ids.flip(0)]), position_ids=positions[:, None].expand(3, 2, -1)
    )
    theirs.logits.logsumexp(-1).sum().backward()

    expected = {
        name.replace("model.language_model.", "model."): parameter.grad
        for name, parameter in oracle.named_parameters()
    }
    parameters = dict(default_reference.model.named_parameters())
    for name, part in default_reference.model.checkpoint_parts():
        if name.startswith("language."):
            gradient = parameters[name].grad
            assert gradient is not None, name
            ours = gradient.narrow(part.dim, part.offset, part.length)
            assert relative_error(ours, expected[part.tensor]) < 1e-4, part.tensor


@torch.inference_mode()
@pytest.mark.parametrize("wanted", [(0, 0, 0, 0), (1, 0, 3, 1), (0, 5, 0, 1), (2, 5, 4, 1)])
def test_only_the_wanted_rows_are_returned_and_all_are_remembered(
    model: Qwen2VL, wanted: tuple[int, ...]
) -> None:
    language, sizes = model.language, (2, 5, 4, 1)
    ids = torch.tensor(random_ids(sum(sizes), seed=7))
    outcomes = []
    for outputs in (sizes, wanted):
        first = prefilled(language, 6, seed=1)
        caches = [first.fork(capacity=16), first.fork(capacity=16), language.new_cache(16)]
        caches.append(prefilled(language, 3, seed=2))
        places = [text_positions(c.length, n) for c, n in zip(caches, sizes, strict=True)]
        segments = [Segment(*given) for given in zip(caches, sizes, outputs, strict=True)]
        hidden = language(language.embed(ids), torch.cat(places, dim=1), segments)
        outcomes.append((hidden, continue_with(language, caches, RUNS[:4])))
    (every, expected), (some, after) = outcomes
    runs = torch.split(every, list(sizes))
    kept = torch.cat([rows[len(rows) - n :] for rows, n in zip(runs, wanted, strict=True)])
    torch.testing.assert_close(some, kept)
    torch.testing.assert_close(torch.cat(after), torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_a_batch_that_does_not_match_its_segments_is_refused(model: Qwen2VL) -> None:
    with pytest.raises(ValueError, match="segments are"):
        model.language(torch.zeros(3, 64), text_positions(0, 3), [Segment(None, 2)])
    with pytest.raises(ValueError, match="needs a token"):
        Segment(None, 0)
    with pytest.raises(ValueError, match="num_outputs = 3 of self.num_tokens = 2"):
        Segment(None, 2, 3)
    with pytest.raises(ValueError, match=r"positions must be \(3, S\)"):
        model.language(torch.zeros(3, 64), torch.arange(3), [Segment(None, 3)])
