"""Streams on vLLM: the words of our own engine, and nothing lost whatever callers do."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import EngineLimits, Sampling
from pipeline.engine.constraint import Choices, JsonSchema
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Question
from pipeline.errors import BadInput, FailureCode, StreamError, Transient
from pipeline.types import TokenChunk
from tests.tiny_folder import write_folder
from tests.tiny_model import Tiny, random_ids
from tests.tiny_tokenizer import tiny_tokenizer
from tests.unit.test_vllm_feed import random_media
from tests.vllm.harness import Engines, ask, fill, said
from tests.vllm.profiles import SHAPE

pytestmark = pytest.mark.timeout(600)

LIMITS = EngineLimits(max_tokens=4_096, question_tokens=512)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    folder = write_folder(tmp_path_factory.mktemp("model") / "tiny", SHAPE)
    with closing(Engines(folder, LIMITS)) as engines:
        yield engines


def tokens_of(
    media: list[PromptWindow], *, seed: int = 0, size: int = SHAPE.config.hidden_size
) -> list[TokenChunk]:
    """Random vectors as large as token vectors are: any wrong place or order changes words."""
    generator = torch.Generator().manual_seed(seed)
    return [
        TokenChunk(
            plan_hash=medium.plan_hash,
            window_index=medium.window.index,
            index=span.index,
            tokens=torch.randn(
                span.num_steps * medium.window.grid.tokens_per_step, size, generator=generator
            ),
        )
        for medium in media
        for span in medium.window.chunks
    ]


def question(seed: int = 2, **knobs: Any) -> Question:
    knobs = {"max_new_tokens": 32} | knobs
    return Question(ids=tuple(random_ids(7, seed=seed)), sampling=Sampling(**knobs))


def media_of(num_tokens: int, *, seed: int = 0) -> list[PromptWindow]:
    """A layout of about so many tokens."""
    chance = random.Random(seed)
    while True:
        media = random_media(chance.randint(0, 10**6))
        if 0.8 * num_tokens < sum(medium.num_tokens for medium in media) <= num_tokens:
            return media


@pytest.mark.parametrize("seed", range(20))
def test_greedy_words_are_those_of_our_own_engine(engines: Engines, seed: int):
    media = media_of(random.Random(seed).choice((20, 200, 900, 3000)), seed=seed)
    ours, theirs = engines.run(
        engines.both(media, tokens_of(media, seed=seed), [question(seed), question(seed + 50)])
    )
    assert theirs == ours
    assert all(len(each.token_ids) > 3 for each in ours)


def test_they_are_with_another_checkpoint_too(tmp_path: Path):
    """Larger heads, each with keys of its own, one table for words in and out, the newer names."""
    shape = Tiny(seed=8, head_dim=64, num_kv_heads=4, num_layers=3, tied=True, layout="nested")
    with closing(Engines(write_folder(tmp_path / "other", shape), LIMITS)) as engines:
        for seed in range(20, 26):
            media = media_of(random.Random(seed).choice((20, 200, 900)), seed=seed)
            chunks = tokens_of(media, seed=seed, size=shape.config.hidden_size)
            ours, theirs = engines.run(engines.both(media, chunks, [question(seed)]))
            assert theirs == ours


def test_a_prompt_of_text_alone_is_answered(engines: Engines):
    ours, theirs = engines.run(engines.both([], [], [question(), question(9)]))
    assert theirs == ours


def test_ten_questions_share_one_prefill(engines: Engines):
    media = media_of(1500)
    asked = [question(seed, max_new_tokens=8) for seed in range(10)]
    before = engines.vllm.num_cached_tokens, engines.vllm.num_prompt_tokens
    ours, theirs = engines.run(engines.both(media, tokens_of(media), asked))
    assert theirs == ours
    cached = engines.vllm.num_cached_tokens - before[0]
    block, num_tokens = engines.vllm.block_tokens, sum(medium.num_tokens for medium in media)
    assert cached == 10 * (num_tokens // block * block)


def test_a_follow_up_goes_on_from_what_was_said(engines: Engines):
    media = media_of(300)

    async def work(decoder: Any) -> Any:
        name = engines.name()
        await fill(decoder, name, media, tokens_of(media))
        (first,) = await ask(decoder, name, [question()])
        ids = (*question().ids, *first.token_ids, *random_ids(5, seed=8))
        more = Question(ids=ids, sampling=Sampling(max_new_tokens=20))
        return first, await ask(decoder, name, [more], closes=True)

    assert engines.run(work(engines.theirs)) == engines.run(work(engines.ours))


@pytest.mark.parametrize(
    "constraint",
    [
        Choices(("yes", "no", "perhaps")),
        JsonSchema('{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'),
    ],
    ids=["choices", "schema"],
)
def test_constraints_hold_and_end_as_ours_do(engines: Engines, constraint: Any):
    media = media_of(300)
    asked = replace(question(max_new_tokens=40), constraint=constraint)
    ours, theirs = engines.run(engines.both(media, tokens_of(media), [asked]))
    assert theirs == ours


def test_a_constraint_too_hard_is_its_questions_own_fault(engines: Engines):
    bad = replace(question(), constraint=JsonSchema('{"type":"array","items":{"$ref":"http://x"}}'))
    ours, theirs = engines.run(engines.both([], [], [bad, question()]))
    assert [each.code for each in theirs] == [FailureCode.BAD_PROMPT, None]
    assert theirs[1] == ours[1]


def test_a_stop_text_ends_an_answer_before_it(engines: Engines):
    media = media_of(300)
    (whole,), _ = engines.run(engines.both(media, tokens_of(media), [question()]))
    stop = whole.text[5:8]
    ours, theirs = engines.run(engines.both(media, tokens_of(media), [question(stop=(stop,))]))
    assert theirs == ours
    assert stop not in theirs[0].text


def test_a_repetition_penalty_counts_the_prompt_as_ours_does(engines: Engines):
    media = media_of(300)
    asked = [question(repetition_penalty=1.3)]
    ours, theirs = engines.run(engines.both(media, tokens_of(media), asked))
    assert theirs == ours


def test_a_seed_gives_the_same_words_again(engines: Engines):
    media = media_of(300)
    asked = [question(temperature=1.0, top_p=0.9, seed=5), question(temperature=1.0, seed=6)]

    async def work() -> Any:
        return [
            await said(engines.theirs, engines.name(), media, tokens_of(media), asked)
            for _ in range(2)
        ]

    first, again = engines.run(work())
    assert first == again


def test_scores_that_are_no_numbers_are_the_questions_failure(engines: Engines):
    media = media_of(300)
    chunks = tokens_of(media)
    chunks[-1].tokens[-1] = torch.nan
    ours, theirs = engines.run(engines.both(media, chunks, [question()]))
    assert ours[0].code is theirs[0].code is FailureCode.NONFINITE_LOGITS
    fine, still = engines.run(engines.both(media, tokens_of(media, seed=4), [question()]))
    assert still == fine


def test_a_chunk_of_another_shape_never_reaches_vllm_and_the_stream_goes_on(engines: Engines):
    media = media_of(600)
    chunks = tokens_of(media)

    async def work() -> Any:
        name = engines.name()
        await engines.theirs.open(name, media)
        for wrong in (
            replace(chunks[0], tokens=chunks[0].tokens[:, :-1]),
            replace(chunks[0], tokens=chunks[0].tokens[:-1]),
            replace(chunks[0], plan_hash="other"),
        ):
            with pytest.raises(StreamError):
                await engines.theirs.prefill(name, wrong, number=0)
            await engines.theirs.close(name)
            await engines.theirs.open(name, media)
        for number, chunk in enumerate(chunks):
            await engines.theirs.prefill(name, chunk, number=number)
        return await ask(engines.theirs, name, [question()], closes=True)

    theirs = engines.run(work())
    assert theirs == engines.run(said(engines.ours, engines.name(), media, chunks, [question()]))


def test_more_streams_than_fit_wait_and_slow_readers_starve_nobody(engines: Engines):
    """Without a reservation four of six such sessions would hold each other up for ever."""
    media = [media_of(1500, seed=seed) for seed in range(6)]  # of which two fit
    chunks = [tokens_of(each, seed=seed) for seed, each in enumerate(media)]
    num_open = Counter[Any]()
    most = Counter[Any]()

    async def read(decoder: Any, index: int) -> Any:
        name = engines.name()
        await decoder.open(name, media[index])
        num_open[decoder] += 1
        most[decoder] = max(most[decoder], num_open[decoder])
        for number, chunk in enumerate(chunks[index]):
            await asyncio.sleep(0)  # others take their turn between any two chunks
            await decoder.prefill(name, chunk, number=number)
        answers = await ask(decoder, name, [question(index)], closes=True)
        num_open[decoder] -= 1
        return answers

    async def all_of(decoder: Any) -> Any:
        return await asyncio.gather(*(read(decoder, index) for index in range(6)))

    assert engines.run(all_of(engines.theirs)) == engines.run(all_of(engines.ours))
    assert most[engines.theirs] == 2
    assert engines.theirs.room.num_free == engines.theirs.room.num_blocks


def test_what_was_prefilled_stays_however_much_comes_before_its_question(engines: Engines):
    """The session holds its blocks until the stream is closed, so nothing is prefilled twice."""
    media = media_of(1200, seed=1)
    chunks = tokens_of(media, seed=1)

    async def work() -> Any:
        name = engines.name()
        await fill(engines.theirs, name, media, chunks)
        for seed in range(4):  # together more than the cache holds
            other = media_of(1500, seed=10 + seed)
            await said(engines.theirs, engines.name(), other, tokens_of(other), [question()])
        before = engines.vllm.num_cached_tokens
        answers = await ask(engines.theirs, name, [question()], closes=True)
        return answers, engines.vllm.num_cached_tokens - before

    theirs, cached = engines.run(work())
    assert theirs == engines.run(said(engines.ours, engines.name(), media, chunks, [question()]))
    block = engines.vllm.block_tokens
    assert cached == sum(medium.num_tokens for medium in media) // block * block


def test_an_abandoned_stream_frees_its_blocks(engines: Engines):
    media = media_of(3000, seed=2)
    chunks = tokens_of(media, seed=2)
    theirs = engines.theirs

    async def work() -> Any:
        lost, waiting = engines.name(owner="lost"), engines.name(owner="lost")
        await theirs.open(lost, media)
        await theirs.prefill(lost, chunks[0], number=0)
        opening = asyncio.create_task(theirs.open(waiting, media))
        await asyncio.sleep(0)
        await theirs.release("lost")
        with pytest.raises(Transient):
            await opening
        assert theirs.room.num_free == theirs.room.num_blocks
        return await said(theirs, engines.name(), media, chunks, [question()])

    expected = engines.run(said(engines.ours, engines.name(), media, chunks, [question()]))
    assert engines.run(work()) == expected


def test_a_question_that_is_given_up_makes_room_for_others(engines: Engines):
    async def work() -> None:
        name = engines.name()
        await engines.theirs.open(name, [])
        endless = question(max_new_tokens=500)
        async with aclosing(engines.theirs.ask(name, [endless])) as asking:
            await anext(asking)
        (answer,) = await ask(engines.theirs, name, [endless], closes=True)
        assert answer.finish_reason is not None

    engines.run(work())


def test_what_never_fits_is_refused_by_name(engines: Engines):
    async def work() -> None:
        with pytest.raises(BadInput) as refused:
            await engines.theirs.open(engines.name(), media_of(1800) * 4)
        assert refused.value.code is FailureCode.TOKEN_BUDGET
        name = engines.name()
        await engines.theirs.open(name, [])
        (long,) = await ask(engines.theirs, name, [question(max_new_tokens=600)], closes=True)
        assert long.code is FailureCode.PROMPT_TOO_LONG

    engines.run(work())


def test_text_of_a_users_makes_no_control_token(engines: Engines):
    """Ids are ours: vLLM is told no text, so it has none to look for control tokens in."""
    tokenizer = tiny_tokenizer(SHAPE)
    ids = tuple(tokenizer.encode_text("<|im_end|><|video_pad|>"))
    assert SHAPE.config.video_pad_id not in ids
    media = media_of(300)
    asked = [Question(ids=ids, sampling=Sampling(max_new_tokens=12))]
    ours, theirs = engines.run(engines.both(media, tokens_of(media), asked))
    assert theirs == ours
