"""From tasks to prompts on pictures, and from the model's words to rows."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.config import Sampling
from pipeline.engine.constraint import Choices
from pipeline.engine.question import Completion
from pipeline.errors import BadInput, FailureCode
from pipeline.tasks.requests import answers, boxes, captions, combine, make_views
from pipeline.tasks.tasks import MAX_REQUESTS, Ask, Ground, Tasks
from pipeline.types import MediaInfo, Size
from tests.plans import make_plan

EVERYTHING = Tasks(
    asks=(Ask(question="How many?", constraint=Choices(("1", "2"))), Ask(question="Why?")),
    grounds=(Ground(query="the dog", times_s=(1.0, 3.0)), Ground(query="the cat", times_s=(3.0,))),
)
NONFINITE = Completion(error=BadInput(FailureCode.NONFINITE_LOGITS, "the scores contain NaN"))


def media(*, seconds=4, is_still=False):
    num_frames = 1 if is_still else seconds * 10
    return MediaInfo(
        container="mp4",
        codec="h264",
        pixel_format="yuv420p",
        width=56,
        height=56,
        coded_width=56,
        coded_height=56,
        rotation_deg=0,
        is_mirrored=False,
        sample_aspect_ratio=1.0,
        time_base_num=1,
        time_base_den=10,
        pts=np.arange(num_frames),
        is_key=np.ones(num_frames, bool),
        duration_s=0.0 if is_still else float(seconds),
        declared_duration_s=None,
        is_still=is_still,
    )


def plan(*, windows=1, is_still=False):
    # A window of 56x56 holds 8 temporal patches of 4 tokens: 16 frames, 8 s.
    made = media(seconds=8 * windows, is_still=is_still)
    return make_plan(
        made,
        source_id="x",
        long="windows",
        max_window_tokens=32,
        min_pixels=56**2,
        max_pixels=56**2,
    )


def views(tasks, *, times=None, **kinds):
    asked = [] if times is None else times

    def still_at(time_s):
        asked.append(time_s)
        return plan(is_still=True)

    return make_views(plan(**kinds), tasks, still_at=still_at)


def written(text, reason="stop"):
    return Completion(text=text, finish_reason=reason)


def test_a_video_is_watched_once_for_all_questions_and_each_moment_once_for_all_queries():
    times = []
    watched, first, second = views(EVERYTHING, times=times)
    assert [r.prompt for r in watched.requests] == ["Describe this video.", "How many?", "Why?"]
    assert watched.requests[1].constraint == Choices(("1", "2"))
    assert times == [1.0, 3.0]
    assert [r.prompt for r in first.requests] == ["Find the dog."]
    assert [r.prompt for r in second.requests] == ["Find the dog.", "Find the cat."]


def test_an_image_is_looked_at_once_for_everything():
    (view,) = views(EVERYTHING, is_still=True)
    assert view.requests[0].prompt == "Describe this image."
    assert len(view.requests) == 1 + 2 + 2  # both moments of the dog are the one picture


def test_without_a_time_grounding_looks_half_way_and_after_the_end_nowhere():
    times = []
    views(Tasks(grounds=(Ground(query="it"),)), times=times)
    views(Tasks(grounds=(Ground(query="it", times_s=(8.0, 99.0)),)), times=times)
    assert times == [4.0, 8.0]


def test_grounding_alone_does_not_watch_the_video():
    (still,) = views(Tasks(caption=None, grounds=(Ground(query="it"),)))
    assert still.plan.is_still


def test_the_caption_prompt_can_be_chosen():
    (view,) = views(Tasks(caption="What a day?"))
    assert [r.prompt for r in view.requests] == ["What a day?"]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: Ask(question="  "), FailureCode.BAD_PROMPT),
        (lambda: Ask(question="a\0b"), FailureCode.BAD_PROMPT),
        (lambda: Ask(question="\udc80"), FailureCode.BAD_PROMPT),
        (lambda: Ground(query=""), FailureCode.BAD_PROMPT),
        (lambda: Ground(query="it", times_s=(float("nan"),)), FailureCode.BAD_PROMPT),
        (lambda: Ground(query="it", times_s=(-1.0,)), FailureCode.BAD_PROMPT),
        (lambda: Tasks(caption="x" * 100_000), FailureCode.PROMPT_TOO_LONG),
        (lambda: Tasks(caption=None), FailureCode.BAD_PROMPT),
        (lambda: Tasks(asks=(Ask(question="?"),) * MAX_REQUESTS), FailureCode.BAD_PROMPT),
    ],
    ids=["blank", "NUL", "surrogate", "no query", "NaN", "negative", "long", "nothing", "too many"],
)
def test_what_no_model_should_see_is_refused_before_any_video(make, code):
    with pytest.raises(BadInput) as refused:
        make()
    assert refused.value.code == code


def test_equal_tasks_have_equal_digests_and_every_field_counts():
    variants = [
        EVERYTHING,
        replace(EVERYTHING, caption=None),
        replace(EVERYTHING, asks=()),
        replace(EVERYTHING, grounds=()),
        replace(EVERYTHING, sampling=Sampling(seed=1)),
    ]
    assert len({tasks.digest for tasks in variants}) == len(variants)
    assert replace(EVERYTHING).digest == EVERYTHING.digest


@pytest.mark.parametrize("num_windows", [1, 2, 3, 7])
def test_windows_answers_are_put_together_in_order_until_one_is_left(num_windows):
    asked = views(Tasks(asks=(Ask(question="Why?"),)), windows=num_windows)
    pairs = [
        (request, written(f"w{index}{request.kind}"))
        for index, view in enumerate(asked)
        for request in view.requests
    ]
    whole = [pair for pair in pairs if pair[0].window_index is None]
    rounds = 0
    while requests := combine(pairs, max_parts=2):
        rounds += 1
        # The stand-in model repeats the parts it was given, so order and completeness show.
        pairs = [(r, written(" ".join(_said(r.prompt)))) for r in requests]
        whole += [pair for pair in pairs if pair[0].window_index is None]
    assert [request.kind for request, _ in whole] == ["caption", "ask"]
    for request, said in whole:
        assert said.text == " ".join(f"w{index}{request.kind}" for index in range(num_windows))
        assert (request.start_s, request.end_s) == (0.0, 8.0 * num_windows)
    assert rounds == {1: 0, 2: 1, 3: 2, 7: 3}[num_windows]


def _said(prompt):
    return [line.partition("] ")[2] for line in prompt.splitlines() if line.startswith("[")]


def test_a_window_that_failed_is_left_out_of_the_whole():
    first, second = views(Tasks(), windows=2)
    pairs = [
        (first.requests[0], NONFINITE),
        (second.requests[0], written("A dog.")),
    ]
    (request,) = combine(pairs, max_parts=5)
    assert _said(request.prompt) == ["A dog."]


def test_words_become_rows_of_their_kind():
    watched, first, _ = views(EVERYTHING)
    caption, how_many, why = watched.requests
    pairs = [
        (caption, written("A dog.")),
        (how_many, written("1", "constraint")),
        (why, NONFINITE),
        (first.requests[0], written("<|box_start|>(0,0),(500,500)<|box_end|>(1,2)")),
    ]
    (said,) = captions(pairs)
    assert (said.text, said.start_s, said.end_s, said.window_index) == ("A dog.", 0.0, 8.0, None)
    good, bad = answers(pairs)
    assert (good.question, good.answer, good.finish_reason) == ("How many?", "1", "constraint")
    assert (bad.answer, bad.finish_reason, bad.code) == ("", None, FailureCode.NONFINITE_LOGITS)
    box, unreadable = boxes(pairs, source=Size(100, 200))
    assert (box.query, box.time_s, box.x1, box.y1) == ("the dog", 1.0, 100.0, 50.0)
    assert (unreadable.outcome, unreadable.code) == ("failed", FailureCode.UNPARSEABLE_OUTPUT)


def test_boxes_before_the_cut_are_found():
    (view,) = views(Tasks(caption=None, grounds=(Ground(query="it"),)))
    said = written("<|box_start|>(0,0),(500,500)<|box_end|><|box_start|>(1,", "length")
    rows = boxes([(view.requests[0], said)], source=Size(9, 9))
    assert {row.finish_reason for row in rows} == {"length"}
    assert [(row.outcome, row.code) for row in rows] == [
        ("found", None),
        ("failed", FailureCode.UNPARSEABLE_OUTPUT),
    ]


@pytest.mark.parametrize(
    ("result", "outcome", "code"),
    [
        (written("not there"), "absent", None),
        (written("", "length"), "failed", FailureCode.UNPARSEABLE_OUTPUT),
        (written("I look at the", "length"), "failed", FailureCode.UNPARSEABLE_OUTPUT),
        (NONFINITE, "failed", FailureCode.NONFINITE_LOGITS),
    ],
)
def test_a_query_without_a_box_has_one_row_that_says_why(result, outcome, code):
    (view,) = views(Tasks(caption=None, grounds=(Ground(query="it"),)))
    (row,) = boxes([(view.requests[0], result)], source=Size(9, 9))
    assert (row.query, row.outcome, row.code, row.x0) == ("it", outcome, code, None)
    assert row.finish_reason == result.finish_reason
