"""Streams and their answers on tiny models: transformers' words, whatever shares the batch."""

import asyncio
from dataclasses import replace

import pytest
import torch

from pipeline.config import EngineLimits
from pipeline.engine.commands import BeginGeneration, OpenStream, Step
from pipeline.engine.constraint import Choices, JsonSchema
from pipeline.engine.engine import Engine
from pipeline.engine.ids import GenerationId
from pipeline.engine.question import Completion, Question, joined
from pipeline.errors import BadInput, FailureCode, StreamError, Transient
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.model.encoder import VisionEncoder
from pipeline.types import TokenChunk
from tests.streams import (
    BEFORE,
    COLUMNS,
    EOS,
    LIMITS,
    ROWS,
    STEPS,
    AskedStream,
    Asking,
    frame_chunks,
    new_rank,
    prompt_window,
    question,
    stream_id,
    token_chunks,
    wait,
)
from tests.tiny_model import Reference, Scene, Tiny, random_frames, tiny_model

SHAPE = Tiny(seed=5)
CHUNKINGS = {"whole": (6,), "steps": (1,) * 6, "uneven": (2, 1, 3)}


@pytest.fixture
def model() -> Qwen2VL:
    return tiny_model(SHAPE)


@pytest.fixture
def engine(model: Qwen2VL) -> Asking:
    return Asking(model)


@pytest.fixture
def stream(model: Qwen2VL, engine: Asking) -> AskedStream:
    """A complete stream of one window."""
    return engine.filled(model, prompt_window())


@pytest.mark.parametrize("sizes", CHUNKINGS.values(), ids=CHUNKINGS)
def test_64_greedy_tokens_are_those_of_transformers_at_the_papers_positions(
    reference: Reference, exact_model: Qwen2VL, sizes: tuple[int, ...]
):
    shown, asked = prompt_window(sizes), question()
    scene = Scene((list(BEFORE), random_frames(2 * STEPS, ROWS, COLUMNS), list(asked.ids)))
    stream = Asking(exact_model, eos=(10_000,)).filled(exact_model, shown)  # no token ends it
    answer = stream.ask(asked)
    assert list(answer.token_ids) == reference.greedy(scene, 64)


def test_several_media_in_one_prompt_are_those_of_transformers(default_reference: Reference):
    model, asked = default_reference.model, question()
    shown = [prompt_window((6,), plan_hash="a"), prompt_window((4, 2), plan_hash="b")]
    frames = [random_frames(2 * STEPS, ROWS, COLUMNS, seed=seed) for seed in (0, 1)]
    scene = Scene((list(BEFORE), frames[0], list(BEFORE), frames[1], list(asked.ids)))
    stream = Asking(model, eos=(10_000,)).open(shown)
    for seed, each in enumerate(shown):
        for chunk in token_chunks(model, each, seed=seed):
            stream.prefill(chunk)
    answer = stream.ask(asked)
    assert list(answer.token_ids) == default_reference.greedy(scene, 64)


def test_a_prompt_of_text_alone_is_that_of_transformers(default_reference: Reference):
    asked = question(20)
    answer = Asking(default_reference.model, eos=(10_000,)).open([]).ask(asked)
    assert list(answer.token_ids) == default_reference.greedy(Scene((list(asked.ids),)), 64)


def test_questions_asked_together_are_answered_as_each_alone(stream: AskedStream):
    questions = [question(3 + seed, seed=seed, max_new_tokens=20 + seed) for seed in range(5)]
    questions.append(question(4, temperature=1.0, seed=9))
    questions.append(replace(questions[0], constraint=Choices(("yes", "no"))))
    together = stream.ask_many(questions)
    assert together == [stream.ask(each) for each in questions]
    assert len(set(together)) == len(questions)


def test_questions_beyond_the_room_wait_and_are_answered_the_same(
    model: Qwen2VL, stream: AskedStream
):
    questions = [question(5, seed=seed, max_new_tokens=10 + 3 * seed) for seed in range(6)]
    shown, limits = prompt_window(), replace(LIMITS, question_tokens=60)
    narrow = Asking(model, limits=limits).filled(model, shown)
    assert narrow.ask_many(questions) == stream.ask_many(questions)


def test_a_question_leaves_nothing_behind(stream: AskedStream):
    first = stream.ask(question(seed=2))
    stream.ask(question(seed=3))
    assert stream.ask(question(seed=2)) == first


def test_a_follow_up_continues_the_conversation(default_reference: Reference):
    model, shown = default_reference.model, prompt_window()
    first, second = question(max_new_tokens=9), question(6, seed=4)
    stream = Asking(model, eos=(10_000,)).filled(model, shown)
    said = stream.ask(first)
    asked = replace(second, ids=first.ids + said.token_ids + second.ids)
    answer = stream.ask(asked)
    frames = random_frames(2 * STEPS, ROWS, COLUMNS)
    scene = Scene((list(BEFORE), frames, list(asked.ids)))
    assert list(answer.token_ids) == default_reference.greedy(scene, 64)


def test_one_step_serves_prefill_and_generation_of_several_streams(
    model: Qwen2VL, stream: AskedStream
):
    asked, shown = question(max_new_tokens=3), prompt_window(plan_hash="other")
    expected, alone = stream.ask(asked), Asking(model).filled(model, shown, seed=1)
    rank, answering, filling = new_rank(model), stream_id(0), stream_id(1)
    rank.control(OpenStream(answering, (prompt_window(),)))
    rank.control(OpenStream(filling, (shown,)))
    for chunk in token_chunks(model, prompt_window()):
        rank.run([Step(prefills=((answering, chunk),))])
    name = GenerationId(answering, 0)
    rank.control(BeginGeneration(name, asked, is_alone=False))
    for chunk in token_chunks(model, shown, seed=1):
        report = rank.run([Step(prefills=((filling, chunk),), generations=(name,))])
    assert report.written[-1][2] == expected
    other = GenerationId(filling, 1)
    rank.control(BeginGeneration(other, question(), is_alone=True))
    while (said := rank.run([Step(generations=(other,))]).written[0][2]) is None:
        pass
    assert said == alone.ask(question())


def test_text_comes_piece_by_piece_and_adds_up(stream: AskedStream):
    deltas = stream.deltas([question()])
    pieces = [delta.text for delta in deltas if delta.text]
    assert len(pieces) > 10
    assert "".join(pieces) == deltas[-1].completion.text


def test_deltas_that_travel_together_are_one_for_each_question(stream: AskedStream):
    deltas = stream.deltas([question(3), question(4)])
    for size in (1, 3, len(deltas)):
        batches = [joined(deltas[start : start + size]) for start in range(0, len(deltas), size)]
        assert all(len({each.question_index for each in b}) == len(b) for b in batches)
        arrived = [delta for batch in batches for delta in batch]
        for index in (0, 1):
            texts, ends = zip(
                *[(each.text, each.completion) for each in arrived if each.question_index == index],
                strict=True,
            )
            assert "".join(texts) == ends[-1].text
            assert ends[:-1] == (None,) * (len(ends) - 1)


def test_an_endless_answer_is_cut_at_its_length_and_says_so(stream: AskedStream):
    answer = stream.ask(question(max_new_tokens=17))
    assert (len(answer.token_ids), answer.finish_reason) == (17, "length")


def test_an_end_token_stops_the_answer_and_is_no_part_of_it(model: Qwen2VL, stream: AskedStream):
    tokens = stream.ask(question()).token_ids
    end = next(token for token in tokens if tokens.index(token) > 4)
    answer = Asking(model, eos=(EOS, end)).filled(model, prompt_window()).ask(question())
    assert answer.finish_reason == "stop"
    assert answer.token_ids == tokens[: tokens.index(end)]


def test_a_stop_text_ends_the_answer_and_never_shows(stream: AskedStream):
    text = stream.ask(question()).text
    stop = text[6:9]
    deltas = stream.deltas([question(stop=("never there", stop))])
    shown, answer = "".join(delta.text for delta in deltas), deltas[-1].completion
    assert shown == answer.text == text[: text.index(stop)]
    assert answer.finish_reason == "stop"


def test_a_constraint_ends_the_answer_where_nothing_may_follow(stream: AskedStream):
    asked = replace(question(), constraint=Choices(("red", "blue")))
    answer = stream.ask(asked)
    assert answer.text in ("red", "blue")
    assert answer.finish_reason == "constraint"


def test_numbers_that_are_not_finite_fail_their_own_question_only(
    model: Qwen2VL, stream: AskedStream
):
    questions = [question(seed=seed) for seed in (2, 3)]
    expected = stream.ask_many(questions)
    poison = 250  # a token that only the bad question has
    bad = replace(questions[0], ids=(*questions[0].ids, poison))
    for each, done in zip(questions, expected, strict=True):
        assert poison not in (*each.ids, *done.token_ids)
    with torch.no_grad():
        model.language.embed_tokens.weight[poison] = float("nan")
    first, failed, last = stream.ask_many([questions[0], bad, questions[1]])
    assert failed.code is stream.ask(bad).code is FailureCode.NONFINITE_LOGITS
    assert [first, last] == expected


def change(chunk: TokenChunk, **fields: object) -> TokenChunk:
    return replace(chunk, **fields)


STRANGERS = {
    "of another plan": lambda chunks: change(chunks[1], plan_hash="q"),
    "of another window": lambda chunks: change(chunks[1], window_index=1),
    "too early": lambda chunks: chunks[2],
    "a second time": lambda chunks: chunks[0],
    "cut short": lambda chunks: change(chunks[1], tokens=chunks[1].tokens[:-1]),
    "of another width": lambda chunks: change(chunks[1], tokens=chunks[1].tokens[:, :-1]),
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_a_chunk_out_of_place_is_refused_and_changes_nothing(model, stranger):
    rank, name, shown = new_rank(model), stream_id(0), prompt_window()
    chunks = token_chunks(model, shown)
    rank.control(OpenStream(name, (shown,)))
    rank.run([Step(prefills=((name, chunks[0]),))])
    ((refused, error),) = rank.run([Step(prefills=((name, stranger(chunks)),))]).refused
    assert (refused, type(error)) == (name, StreamError)
    for chunk in chunks[1:]:
        assert not rank.run([Step(prefills=((name, chunk),))]).refused
    asked = GenerationId(name, 0)
    rank.control(BeginGeneration(asked, question(), is_alone=True))
    while (said := rank.run([Step(generations=(asked,))]).written[0][2]) is None:
        pass
    assert said == Asking(model).filled(model, shown).ask(question())


def test_no_question_before_the_last_chunk_and_no_chunk_after_it(model: Qwen2VL, engine: Asking):
    shown = prompt_window()
    chunks = token_chunks(model, shown)
    stream = engine.open([shown])
    for chunk in chunks:
        with pytest.raises(StreamError, match="before"):
            stream.ask(question())
        stream.prefill(chunk)
    with pytest.raises(StreamError, match="all"):
        stream.prefill(chunks[-1])


def test_chunks_that_arrive_in_another_order_are_taken_in_theirs(model: Qwen2VL, stream):
    """Of two calls under way, Ray may deliver the later one first."""
    shown, name = prompt_window(), stream_id(0)
    chunks = token_chunks(model, shown)

    async def run() -> Completion:
        engine = Engine(new_rank(model))
        await engine.open(name, [shown])
        calls = [engine.prefill(name, chunks[n], number=n) for n in (2, 0, 1)]
        await asyncio.gather(*calls)
        with pytest.raises(StreamError, match="twice"):
            await engine.prefill(name, chunks[1], number=1)
        async for delta in engine.ask(name, [question()], closes=True):
            said = delta.completion
        assert engine.rank.streams == ()
        return said

    assert wait(run()) == stream.ask(question())


def test_the_budget_is_reserved_at_open_and_free_after_close(engine: Asking):
    free = engine.num_free_tokens
    shown = prompt_window()
    streams = [engine.open([shown]) for _ in range(3)]
    assert engine.num_free_tokens == free - 3 * (shown.num_tokens + LIMITS.question_tokens)
    with pytest.raises(Transient):
        engine.rank.control(OpenStream(stream_id(99), (shown,)))
    streams[0].close()
    streams[0].close()
    streams.append(engine.open([shown]))
    for stream in streams:
        stream.close()
    assert engine.num_free_tokens == free


def test_a_prompt_that_could_never_fit_is_its_own_fault(model: Qwen2VL):
    engine = Asking(model, limits=EngineLimits(max_tokens=60, question_tokens=40))
    with pytest.raises(BadInput) as caught:
        engine.open([prompt_window()])
    assert caught.value.code is FailureCode.TOKEN_BUDGET


TOO_LONG = {
    "more than the room": question(LIMITS.question_tokens - 63),
    "more to write than the room": question(max_new_tokens=LIMITS.question_tokens),
}


@pytest.mark.parametrize("asked", TOO_LONG.values(), ids=TOO_LONG)
def test_a_question_too_long_fails_alone(stream: AskedStream, asked: Question):
    good = question()
    failed, answered = stream.ask_many([asked, good])
    assert failed.code is FailureCode.PROMPT_TOO_LONG
    assert answered == stream.ask(good)


def test_positions_beyond_the_models_own_are_refused(model: Qwen2VL):
    limit = SHAPE.config.max_positions
    limits = EngineLimits(max_tokens=2 * limit, question_tokens=2 * limit)
    said = Asking(model, limits=limits).open([]).ask(question(limit))
    assert said.code is FailureCode.PROMPT_TOO_LONG


def test_a_constraint_that_cannot_be_used_ends_its_own_question_only(stream: AskedStream):
    hopeless = replace(question(), constraint=JsonSchema('{"type": "no such type"}'))
    failed, answered = stream.ask_many([hopeless, question()])
    assert failed.code is FailureCode.BAD_PROMPT
    assert answered == stream.ask(question())


def test_an_empty_question_is_refused():
    with pytest.raises(BadInput) as caught:
        Question(ids=())
    assert caught.value.code is FailureCode.BAD_PROMPT


@pytest.mark.parametrize("has_room", [True, False])
def test_a_lone_question_reads_a_copy_of_the_video_where_there_is_room(
    model: Qwen2VL, has_room: bool
):
    shown, asked = prompt_window(), question()
    needed = shown.num_tokens + asked.max_tokens
    limits = EngineLimits(max_tokens=2 * needed, question_tokens=needed - (not has_room))
    engine = Asking(model, limits=limits)
    stream = engine.filled(model, shown)
    held = engine.rank._streams[stream.name]
    held.begin(0, asked, is_alone=True)
    assert held.generations[0].num_reserved == (needed if has_room else asked.max_tokens)
    held.end(0)
    alone, (together, _) = stream.ask(asked), stream.ask_many([asked, asked])
    assert alone == together


def test_to_begin_an_answer_copies_nothing(model: Qwen2VL, stream: AskedStream, engine: Asking):
    """Whoever carries out controls must not wait for a whole video's keys and values."""
    held = engine.rank._streams[stream.name]
    held.begin(0, question(), is_alone=True)
    assert held.generations[0]._cache is None


def test_a_closed_stream_takes_nothing(model: Qwen2VL, stream: AskedStream):
    stream.close()
    with pytest.raises(Transient, match="closed"):
        stream.ask(question())
    with pytest.raises(Transient, match="closed"):
        stream.prefill(token_chunks(model, prompt_window())[0])


def test_encoding_in_batches_gives_every_chunk_its_own_tokens(model: Qwen2VL):
    frames = random_frames(2 * STEPS, ROWS, COLUMNS)
    wide = random_frames(4, ROWS, COLUMNS + 1)
    encoder, chunks = VisionEncoder(model.vision), frame_chunks(prompt_window((2, 2, 1, 1)), frames)
    stranger = replace(chunks[0], plan_hash="q", frames=wide)
    batch = [chunks[3], stranger, *chunks[:3]]
    for token_chunk, chunk in zip(encoder.encode(batch), batch, strict=True):
        (alone,) = encoder.encode([chunk])
        torch.testing.assert_close(token_chunk.tokens, alone.tokens, rtol=1e-5, atol=1e-5)
        key = (token_chunk.plan_hash, token_chunk.window_index, token_chunk.index)
        assert key == (chunk.plan_hash, chunk.window_index, chunk.index)
