"""Streams and their answers on tiny models: transformers' words, whatever shares the batch."""

from dataclasses import replace

import pytest
import torch

from pipeline.config import EngineLimits
from pipeline.engine.admission import Engine
from pipeline.engine.answer import Answer, Question
from pipeline.engine.constraint import Choices
from pipeline.engine.step import step
from pipeline.engine.stream import Stream, joined
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
    frame_chunks,
    new_engine,
    prompt_window,
    question,
    token_chunks,
)
from tests.tiny_model import Reference, Scene, Tiny, random_frames, tiny_model

SHAPE = Tiny(seed=5)
CHUNKINGS = {"whole": (6,), "steps": (1,) * 6, "uneven": (2, 1, 3)}


@pytest.fixture
def model() -> Qwen2VL:
    return tiny_model(SHAPE)


@pytest.fixture
def engine(model: Qwen2VL) -> Engine:
    return new_engine(model)


@pytest.fixture
def stream(model: Qwen2VL, engine: Engine) -> Stream:
    """A complete stream of one window."""
    shown = prompt_window()
    stream = engine.open([shown])
    for chunk in token_chunks(model, shown):
        stream.prefill(chunk)
    return stream


@pytest.mark.parametrize("sizes", CHUNKINGS.values(), ids=CHUNKINGS)
def test_64_greedy_tokens_are_those_of_transformers_at_the_papers_positions(
    reference: Reference, exact_model: Qwen2VL, sizes: tuple[int, ...]
):
    shown, asked = prompt_window(sizes), question()
    scene = Scene((list(BEFORE), random_frames(2 * STEPS, ROWS, COLUMNS), list(asked.ids)))
    engine = new_engine(exact_model, eos=(10_000,))  # no token ends an answer
    with engine.open([shown]) as stream:
        for chunk in token_chunks(exact_model, shown):
            stream.prefill(chunk)
        answer = stream.ask(asked).answer
    assert list(answer.token_ids) == reference.greedy(scene, 64)


def test_several_media_in_one_prompt_are_those_of_transformers(default_reference: Reference):
    model, asked = default_reference.model, question()
    shown = [prompt_window((6,), plan_hash="a"), prompt_window((4, 2), plan_hash="b")]
    frames = [random_frames(2 * STEPS, ROWS, COLUMNS, seed=seed) for seed in (0, 1)]
    scene = Scene((list(BEFORE), frames[0], list(BEFORE), frames[1], list(asked.ids)))
    with new_engine(model, eos=(10_000,)).open(shown) as stream:
        for seed, each in enumerate(shown):
            for chunk in token_chunks(model, each, seed=seed):
                stream.prefill(chunk)
        answer = stream.ask(asked).answer
    assert list(answer.token_ids) == default_reference.greedy(scene, 64)


def test_a_prompt_of_text_alone_is_that_of_transformers(default_reference: Reference):
    asked = question(20)
    with new_engine(default_reference.model, eos=(10_000,)).open([]) as stream:
        answer = stream.ask(asked).answer
    assert list(answer.token_ids) == default_reference.greedy(Scene((list(asked.ids),)), 64)


def test_questions_asked_together_are_answered_as_each_alone(stream: Stream):
    questions = [question(3 + seed, seed=seed, max_new_tokens=20 + seed) for seed in range(5)]
    questions.append(question(4, temperature=1.0, seed=9))
    questions.append(replace(questions[0], constraint=Choices(("yes", "no"))))
    together = stream.ask_many(questions)
    assert together == [stream.ask(each).answer for each in questions]
    assert len(set(together)) == len(questions)


def test_questions_beyond_the_room_wait_and_are_answered_the_same(model: Qwen2VL, stream: Stream):
    questions = [question(5, seed=seed, max_new_tokens=10 + 3 * seed) for seed in range(6)]
    shown, limits = prompt_window(), replace(LIMITS, question_tokens=60)
    with new_engine(model, limits=limits).open([shown]) as narrow:
        for chunk in token_chunks(model, shown):
            narrow.prefill(chunk)
        assert narrow.ask_many(questions) == stream.ask_many(questions)


def test_a_question_leaves_nothing_behind(stream: Stream):
    first = stream.ask(question(seed=2)).answer
    stream.ask(question(seed=3)).answer  # noqa: B018
    assert stream.ask(question(seed=2)).answer == first


def test_a_follow_up_continues_the_conversation(default_reference: Reference):
    model, shown = default_reference.model, prompt_window()
    first, second = question(max_new_tokens=9), question(6, seed=4)
    with new_engine(model, eos=(10_000,)).open([shown]) as stream:
        for chunk in token_chunks(model, shown):
            stream.prefill(chunk)
        said = stream.ask(first).answer
        asked = replace(second, ids=first.ids + said.token_ids + second.ids)
        answer = stream.ask(asked).answer
    frames = random_frames(2 * STEPS, ROWS, COLUMNS)
    scene = Scene((list(BEFORE), frames, list(asked.ids)))
    assert list(answer.token_ids) == default_reference.greedy(scene, 64)


def test_one_step_serves_prefill_and_generation_of_several_streams(model: Qwen2VL, stream: Stream):
    expected = stream.ask(question(max_new_tokens=3)).answer
    shown = prompt_window(plan_hash="other")
    chunks = token_chunks(model, shown, seed=1)
    alone, mixed = (new_engine(model).open([shown]) for _ in range(2))
    turn = stream.begin(question(max_new_tokens=3))
    for chunk in chunks:
        alone.prefill(chunk)
        (token,) = step(model.language, [mixed.addition(chunk), turn.addition()])
        turn.accept(token)
    assert turn.result == expected
    assert mixed.is_complete
    assert mixed.ask(question()).answer == alone.ask(question()).answer


def test_text_comes_piece_by_piece_and_adds_up(stream: Stream):
    reply = stream.ask(question())
    pieces = list(reply)
    assert len(pieces) > 10
    assert "".join(pieces) == reply.answer.text


def test_pieces_that_travel_together_are_one_for_each_question(stream: Stream):
    pieces = list(stream.write([question(3), question(4)]))
    for size in (1, 3, len(pieces)):
        batches = [joined(pieces[start : start + size]) for start in range(0, len(pieces), size)]
        assert all(len({each.question_index for each in b}) == len(b) for b in batches)
        arrived = [piece for batch in batches for piece in batch]
        for index in (0, 1):
            texts, results = zip(
                *[(each.text, each.result) for each in arrived if each.question_index == index],
                strict=True,
            )
            assert "".join(texts) == results[-1].text
            assert results[:-1] == (None,) * (len(results) - 1)


def test_an_endless_answer_is_cut_at_its_length_and_says_so(stream: Stream):
    answer = stream.ask(question(max_new_tokens=17)).answer
    assert (len(answer.token_ids), answer.finish_reason) == (17, "length")


def test_an_end_token_stops_the_answer_and_is_no_part_of_it(model: Qwen2VL, stream: Stream):
    tokens = stream.ask(question()).answer.token_ids
    end = next(token for token in tokens if tokens.index(token) > 4)
    shown = prompt_window()
    with new_engine(model, eos=(EOS, end)).open([shown]) as other:
        for chunk in token_chunks(model, shown):
            other.prefill(chunk)
        answer = other.ask(question()).answer
    assert answer.finish_reason == "stop"
    assert answer.token_ids == tokens[: tokens.index(end)]


def test_a_stop_text_ends_the_answer_and_never_shows(stream: Stream):
    text = stream.ask(question()).answer.text
    stop = text[6:9]
    reply = stream.ask(question(stop=("never there", stop)))
    shown = "".join(reply)
    assert shown == reply.answer.text == text[: text.index(stop)]
    assert reply.answer.finish_reason == "stop"


def test_a_constraint_ends_the_answer_where_nothing_may_follow(stream: Stream):
    asked = replace(question(), constraint=Choices(("red", "blue")))
    answer = stream.ask(asked).answer
    assert answer.text in ("red", "blue")
    assert answer.finish_reason == "constraint"


def test_numbers_that_are_not_finite_fail_their_own_question_only(model: Qwen2VL, stream: Stream):
    questions = [question(seed=seed) for seed in (2, 3)]
    expected = stream.ask_many(questions)
    poison = 250  # a token that only the bad question has
    bad = replace(questions[0], ids=(*questions[0].ids, poison))
    for each, done in zip(questions, expected, strict=True):
        assert poison not in (*each.ids, *done.token_ids)
    with torch.no_grad():
        model.language.embed_tokens.weight[poison] = float("nan")
    first, failed, last = stream.ask_many([questions[0], bad, questions[1]])
    assert isinstance(failed, BadInput)
    assert failed.code is FailureCode.NONFINITE_LOGITS
    assert [first, last] == expected
    with pytest.raises(BadInput, match="nonfinite_logits"):
        stream.ask(bad).answer  # noqa: B018


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
def test_a_chunk_out_of_place_is_refused_and_changes_nothing(model, engine, stream, stranger):
    shown = prompt_window()
    chunks = token_chunks(model, shown)
    other = engine.open([shown])
    other.prefill(chunks[0])
    with pytest.raises(StreamError):
        other.prefill(stranger(chunks))
    for chunk in chunks[1:]:
        other.prefill(chunk)
    assert other.ask(question()).answer == stream.ask(question()).answer


def test_no_question_before_the_last_chunk_and_no_chunk_after_it(model: Qwen2VL, engine: Engine):
    shown = prompt_window()
    chunks = token_chunks(model, shown)
    stream = engine.open([shown])
    for chunk in chunks:
        with pytest.raises(StreamError, match="before"):
            stream.begin(question())
        stream.prefill(chunk)
    with pytest.raises(StreamError, match="all"):
        stream.prefill(chunks[-1])


def test_the_budget_is_reserved_at_open_and_free_after_close(engine: Engine):
    free = engine.num_free_tokens
    shown = prompt_window()
    streams = [engine.open([shown]) for _ in range(3)]
    assert engine.num_free_tokens == free - 3 * (shown.num_tokens + LIMITS.question_tokens)
    with pytest.raises(Transient):
        engine.open([shown])
    streams[0].close()
    streams[0].close()
    streams.append(engine.open([shown]))
    for stream in streams:
        stream.close()
    assert engine.num_free_tokens == free


def test_a_prompt_that_could_never_fit_is_its_own_fault(model: Qwen2VL):
    engine = new_engine(model, limits=EngineLimits(max_tokens=60, question_tokens=40))
    with pytest.raises(BadInput) as caught:
        engine.open([prompt_window()])
    assert caught.value.code is FailureCode.TOKEN_BUDGET


TOO_LONG = {
    "more than the room": question(LIMITS.question_tokens - 63),
    "more to write than the room": question(max_new_tokens=LIMITS.question_tokens),
}


@pytest.mark.parametrize("asked", TOO_LONG.values(), ids=TOO_LONG)
def test_a_question_too_long_fails_alone(stream: Stream, asked: Question):
    good = question()
    failed, answered = stream.ask_many([asked, good])
    assert isinstance(failed, BadInput)
    assert failed.code is FailureCode.PROMPT_TOO_LONG
    assert answered == stream.ask(good).answer


def test_positions_beyond_the_models_own_are_refused(model: Qwen2VL):
    limit = SHAPE.config.max_positions
    engine = new_engine(model, limits=EngineLimits(max_tokens=2 * limit, question_tokens=2 * limit))
    with engine.open([]) as stream, pytest.raises(BadInput) as caught:
        stream.begin(question(limit))
    assert caught.value.code is FailureCode.PROMPT_TOO_LONG


def test_an_empty_question_is_refused():
    with pytest.raises(BadInput) as caught:
        Question(ids=())
    assert caught.value.code is FailureCode.BAD_PROMPT


def test_giving_up_an_answer_frees_its_room(stream: Stream):
    long = question(max_new_tokens=LIMITS.question_tokens - 7)
    reply = stream.ask(long)
    next(iter(reply))
    with pytest.raises(Transient):
        stream.begin(long)
    reply.close()
    with pytest.raises(StreamError, match="given up"):
        reply.answer  # noqa: B018
    assert isinstance(stream.ask(question()).answer, Answer)


@pytest.mark.parametrize("has_room", [True, False])
def test_a_lone_question_reads_a_copy_of_the_video_where_there_is_room(
    model: Qwen2VL, has_room: bool
):
    shown, asked = prompt_window(), question()
    needed = shown.num_tokens + asked.max_tokens
    limits = EngineLimits(max_tokens=2 * needed, question_tokens=needed - (not has_room))
    with new_engine(model, limits=limits).open([shown]) as stream:
        for chunk in token_chunks(model, shown):
            stream.prefill(chunk)
        lone = stream.begin(asked, is_alone=True)
        assert lone.num_reserved == (needed if has_room else asked.max_tokens)
        stream.end(lone)
        alone, (together, _) = stream.ask(asked).answer, stream.ask_many([asked, asked])
        assert alone == together


def test_a_closed_stream_takes_nothing(model: Qwen2VL, stream: Stream):
    stream.close()
    with pytest.raises(StreamError, match="closed"):
        stream.begin(question())
    with pytest.raises(StreamError, match="closed"):
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
