"""Boxes <-> text: what the model may write, and what a reader of the table may rely on."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import FailureCode
from pipeline.families.qwen2_vl.boxes import (
    MAX_BOXES,
    STEPS,
    BoxPx,
    Found,
    Unreadable,
    format_box,
    grounding_question,
    parse_boxes,
)
from pipeline.types import Size

HD = Size(1000, 2000)  # a step is 2 px wide and 1 px high: expected values can be read off

READABLE = {
    "as trained": (
        "<|object_ref_start|>the red car<|object_ref_end|>"
        "<|box_start|>(176,106),(232,160)<|box_end|>",
        [("the red car", (352, 106, 464, 160), ())],
    ),
    "two boxes of one label": (
        "<|object_ref_start|>dogs<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>"
        "<|box_start|>(5,6),(7,8)<|box_end|>",
        [("dogs", (2, 2, 6, 4), ()), ("dogs", (10, 6, 14, 8), ())],
    ),
    "two labels in a sentence": (
        "A <|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|> and a "
        "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(5,6),(7,8)<|box_end|>.",
        [("cat", (2, 2, 6, 4), ()), ("dog", (10, 6, 14, 8), ())],
    ),
    "box end missing": ("<|box_start|>(1,2),(3,4)", [(None, (2, 2, 6, 4), ())]),
    "box end missing between two": (
        "<|box_start|>(1,2),(3,4)<|box_start|>(5,6),(7,8)",
        [(None, (2, 2, 6, 4), ()), (None, (10, 6, 14, 8), ())],
    ),
    "label end and box start missing": (
        "<|object_ref_start|>cat(1,2),(3,4)",
        [("cat", (2, 2, 6, 4), ())],
    ),
    "special tokens stripped": (
        "the red car(176,106),(232,160)",
        [(None, (352, 106, 464, 160), ())],
    ),
    "special tokens stripped from two boxes": (
        "dogs(1,2),(3,4)(5,6),(7,8)",
        [(None, (2, 2, 6, 4), ()), (None, (10, 6, 14, 8), ())],
    ),
    "spaces and decimals": ("( 1.5 , 2 ) , ( 3 , 4 )", [(None, (3, 2, 6, 4), ())]),
    "comma between corners missing": (
        "<|box_start|>(1,2)(3,4)<|box_end|>",
        [(None, (2, 2, 6, 4), ())],
    ),
    "reversed corners": ("(3,4),(1,2)", [(None, (2, 2, 6, 4), ("swapped",))]),
    "one axis reversed": ("(3,2),(1,4)", [(None, (2, 2, 6, 4), ("swapped",))]),
    "outside the picture": ("(-5,900),(1200,1100)", [(None, (0, 900, 2000, 1000), ("clamped",))]),
    "1000 is the far edge": ("(0,0),(1000,1000)", [(None, (0, 0, 2000, 1000), ("clamped",))]),
    "quad": (
        "<|quad_start|>(1,2),(9,1),(8,7),(2,6)<|quad_end|>",
        [(None, (2, 1, 18, 7), ("from_quad",))],
    ),
}

ONE, TWO, THREE, FOUR = (2, 2, 6, 4), (10, 6, 14, 8), (18, 10, 22, 12), (26, 14, 30, 16)
REF, END_REF = "<|object_ref_start|>", "<|object_ref_end|>"
BOX, END_BOX = "<|box_start|>", "<|box_end|>"
QUAD, END_QUAD = "<|quad_start|>", "<|quad_end|>"

# Forms that were met, with (label, box) of each; of a box that can't be read, None.
FORMS = {
    # several boxes under one marker
    "two boxes under one marker": (
        f"{REF}dogs{END_REF}{BOX}(1,2),(3,4),(5,6),(7,8){END_BOX}",
        [("dogs", ONE), ("dogs", TWO)],
    ),
    "four boxes under one marker": (
        f"{BOX}(1,2),(3,4),(5,6),(7,8),(9,10),(11,12),(13,14),(15,16){END_BOX}",
        [(None, ONE), (None, TWO), (None, THREE), (None, FOUR)],
    ),
    "two boxes with a semicolon": (
        f"{BOX}(1,2),(3,4);(5,6),(7,8){END_BOX}",
        [(None, ONE), (None, TWO)],
    ),
    "two boxes with a word between": (
        f"{BOX}(1,2),(3,4) and (5,6),(7,8){END_BOX}",
        [(None, ONE), (None, TWO)],
    ),
    "two boxes on lines of their own": (
        f"{BOX}(1,2),(3,4)\n(5,6),(7,8){END_BOX}",
        [(None, ONE), (None, TWO)],
    ),
    "three points under one marker": (f"{BOX}(1,2),(3,4),(5,6){END_BOX}", [(None, None)]),
    "four points without any marker": ("(1,2),(3,4),(5,6),(7,8)", [(None, ONE), (None, TWO)]),
    # quads
    "a quad": (f"{QUAD}(1,2),(3,2),(3,4),(1,4){END_QUAD}", [(None, ONE)]),
    "two quads": (
        f"{QUAD}(1,2),(3,2),(3,4),(1,4),(5,6),(7,6),(7,8),(5,8){END_QUAD}",
        [(None, ONE), (None, TWO)],
    ),
    "two points under the quad marker": (f"{QUAD}(1,2),(3,4){END_QUAD}", [(None, None)]),
    "a quad without its end": (f"{QUAD}(1,2),(3,2),(3,4),(1,4)", [(None, ONE)]),
    # missing ends
    "box end missing, words after it": (
        f"{BOX}(1,2),(3,4) is the dog of 2 (or 3) that I see.",
        [(None, ONE)],
    ),
    "box end missing, a lone pair after it": (
        f"{BOX}(1,2),(3,4) as in figure (9,9)",
        [(None, ONE)],
    ),
    "box end cut in half": (f"{BOX}(1,2),(3,4)<|box_e", [(None, ONE)]),
    "label end missing": (f"{REF}dog (2){BOX}(1,2),(3,4){END_BOX}", [("dog (2)", ONE)]),
    "box start missing": (f"{REF}dog{END_REF}(1,2),(3,4){END_BOX}", [("dog", ONE)]),
    "all ends missing": (f"{REF}dog{BOX}(1,2),(3,4)", [("dog", ONE)]),
    "cut inside the second point": (f"{BOX}(1,2),(3,", [(None, None)]),
    "cut after the first point of a second box": (
        f"{BOX}(1,2),(3,4){END_BOX}{BOX}(5,6),",
        [(None, ONE), (None, None)],
    ),
    "cut right after a marker": (f"{REF}dog{END_REF}{BOX}", [("dog", None)]),
    # one marker for another
    "a quad within a box": (
        f"{BOX}{QUAD}(1,2),(3,2),(3,4),(1,4){END_QUAD}{END_BOX}",
        [(None, ONE)],
    ),
    "a box within a box": (f"{BOX}{BOX}(1,2),(3,4){END_BOX}{END_BOX}", [(None, ONE)]),
    "a quad's end behind a box": (f"{BOX}(1,2),(3,4){END_QUAD}", [(None, ONE)]),
    "a box in a label's place": (f"{REF}(1,2),(3,4){END_REF}", [(None, ONE)]),
    "a label behind its box": (f"{BOX}(1,2),(3,4){END_BOX}{REF}dog{END_REF}", [(None, ONE)]),
    "an empty label": (f"{REF} {END_REF}{BOX}(1,2),(3,4){END_BOX}", [(None, ONE)]),
    "words between a label and its box": (
        f"{REF}dog{END_REF} (left) {BOX}(1,2),(3,4){END_BOX}",
        [("dog", ONE)],
    ),
    # numbers
    "floats": (f"{BOX}(1.0,2.0),(3.0,4.0){END_BOX}", [(None, ONE)]),
    "spaces": (f"{BOX} ( 1 , 2 ) , ( 3 , 4 ) {END_BOX}", [(None, ONE)]),
    "signs": (f"{BOX}(+1,+2),(+3,+4){END_BOX}", [(None, ONE)]),
    "points without decimals": (f"{BOX}(1.,2.),(3.,4.){END_BOX}", [(None, ONE)]),
    "many decimals": (
        f"{BOX}(1.00000000000001,2),(3,4){END_BOX}",
        [(None, (2.00000000000002, 2, 6, 4))],
    ),
    "leading zeros": (f"{BOX}(001,002),(003,004){END_BOX}", [(None, ONE)]),
    "fractions without a zero": (f"{BOX}(.1,.2),(.3,.4){END_BOX}", [(None, None)]),
    "per cent": (f"{BOX}(1%,2%),(3%,4%){END_BOX}", [(None, None)]),
    "a dash between": (f"{BOX}(1,2)-(3,4){END_BOX}", [(None, ONE)]),
    "fractions of a side": (f"{BOX}(0.1,0.2),(0.3,0.4){END_BOX}", [(None, None)]),
    "full-width punctuation": (f"{BOX}（1，2），（3，4）{END_BOX}", [(None, ONE)]),
    "full-width digits": ("红车（１，２），（３，４）", [(None, ONE)]),
    "an enumeration comma": (f"{BOX}(1,2)、(3,4){END_BOX}", [(None, ONE)]),
    # the first Qwen-VL
    "old markers": ("<ref>the dog</ref><box>(1,2),(3,4)</box>", [("the dog", ONE)]),
    "old markers, two boxes": (
        "<ref>dogs</ref><box>(1,2),(3,4)</box><box>(5,6),(7,8)</box>",
        [("dogs", ONE), ("dogs", TWO)],
    ),
    "old markers, no end": ("<ref>the dog</ref><box>(1,2),(3,4)", [("the dog", ONE)]),
    "old quad": ("<quad>(1,2),(3,2),(3,4),(1,4)</quad>", [(None, ONE)]),
    # labels and prose
    "a label with points in it": (
        f"{REF}the car (1,2),(3,4){END_REF}{BOX}(5,6),(7,8){END_BOX}",
        [("the car (1,2),(3,4)", TWO)],
    ),
    "a label with a number": (
        f"{REF}dog (12){END_REF}{BOX}(1,2),(3,4){END_BOX}",
        [("dog (12)", ONE)],
    ),
    "a number in a sentence": ("The dog (3 years old) is not in the picture.", []),
    "a pair in a sentence": ("As shown in (3,4), there is no dog.", []),
    "two pairs in a sentence": ("Between (3,4) and (5,6) there is no dog.", []),
    "a list and a year": ("No dogs [1], none [2]; see Smith (2019).", []),
    "prose before and after a box": (
        f"There are 2 (two) dogs: {BOX}(1,2),(3,4){END_BOX} is one (of 2).",
        [(None, ONE)],
    ),
    "a label alone": (f"I see no {REF}dog{END_REF} (0 found).", []),
    # other ways to say where
    "a point alone": ("(12,34)", [(None, None)]),
    "a point in a box": (f"{REF}dog{END_REF}{BOX}(12,34){END_BOX}", [("dog", None)]),
    "a point after a label": (f"{REF}dog{END_REF}(12,34)", [("dog", None)]),
    "a tag of points": ('<point x="12" y="34">dog</point>', [(None, None)]),
    "JSON boxes": ('[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}]', [(None, None)]),
    "JSON in a fence": ('```json\n[{"bbox_2d": [1, 2, 3, 4]}]\n```', [(None, None)]),
    "JSON points": ('{"point_2d": [12, 34], "label": "dog"}', [(None, None)]),
    "a list of four": ("The dog is at [1, 2, 3, 4].", [(None, None)]),
    "four in one bracket": (f"{BOX}(1,2,3,4){END_BOX}", [(None, None)]),
    "JSON with single quotes": ("{'bbox': [1, 2, 3, 4], 'label': 'dog'}", [(None, None)]),
    "JSON sides": ('{"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}', [(None, None)]),
    "JSON corner and size": ('{"x": 1, "y": 2, "width": 3, "height": 4}', [(None, None)]),
    "JSON cut off": ('[{"bbox_2d": [1, 2,', [(None, None)]),
    "sides by name": ("x1=1, y1=2, x2=3, y2=4", [(None, None)]),
    "corners by name": ("Top left: (1,2)\nbottom right: (3,4)", [(None, None)]),
    "corners in square brackets": ("[[1, 2], [3, 4]]", [(None, None)]),
    "semicolons in points": ("(1;2),(3;4)", [(None, None)]),
    "blanks in points": ("(1 2),(3 4)", [(None, None)]),
    "four bare numbers": ("1, 2, 3, 4", [(None, None)]),
    "a bounding box in words": ("The bounding box is 1, 2, 3, 4.", [(None, None)]),
    "another tag": ("<bbox>1,2,3,4</bbox>", [(None, None)]),
    "tokens of places": ("<loc0001><loc0002><loc0003><loc0004> dog", [(None, None)]),
    "old markers, bare numbers": ("<box>1,2,3,4</box>", [(None, None)]),
    "numbers and a list of rooms": ("No dog in the rooms 1, 2, 3, 4 of the house.", []),
    "coordinates in words": ("The coordinates of the box are not known.", []),
    "empty JSON": ("[]", []),
    "JSON without a place": ('{"answer": "no dog", "count": 0}', []),
}


@pytest.mark.parametrize(("text", "expected"), FORMS.values(), ids=FORMS.keys())
def test_every_form_that_was_met_is_read_or_fails_by_name(text, expected):
    got = parse_boxes(text, source=HD)
    assert [
        (item.label, (item.box.x0, item.box.y0, item.box.x1, item.box.y1))
        if isinstance(item, Found)
        else (item.label, None)
        for item in got
    ] == expected


UNREADABLE = {
    "one point": ("(12,34)", "(12,34)"),
    "one point in a box": ("<|box_start|>(12,34)<|box_end|>", "(12,34)"),
    "three points": ("(1,2),(3,4),(5,6)", "(1,2),(3,4),(5,6)"),
    "words in a box": ("<|box_start|>somewhere<|box_end|>", "somewhere"),
    "an empty box": ("<|box_start|><|box_end|>", ""),
    "no area": ("(5,5),(5,9)", "(5,5),(5,9)"),
    "wholly outside": ("(1500,0),(1600,10)", "(1500,0),(1600,10)"),
    "another family's format": ('{"bbox_2d": [12, 30, 50, 60]}', '{"bbox_2d": [12, 30, 50, 60]}'),
    "a number too long to be one": ("(1,2),(3,99999999999999999999)", "(1,2)"),
}


@pytest.mark.parametrize(("text", "expected"), READABLE.values(), ids=READABLE.keys())
def test_every_readable_form_gives_its_boxes_in_source_pixels(text, expected):
    found = parse_boxes(text, source=HD)
    assert [
        (f.label, (f.box.x0, f.box.y0, f.box.x1, f.box.y1), f.adjusted) for f in found
    ] == expected


@pytest.mark.parametrize(("text", "raw"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_box_is_a_coded_failure_with_its_raw_text(text, raw):
    (failure,) = parse_boxes(text, source=HD)
    assert isinstance(failure, Unreadable)
    assert (failure.code, failure.raw) == (FailureCode.UNPARSEABLE_OUTPUT, raw)


def test_one_unreadable_box_leaves_its_neighbours():
    results = parse_boxes(
        "<|box_start|>(1,2),(3,4)<|box_end|><|box_start|>oops<|box_end|>(5,6),(7,8)", source=HD
    )
    assert [type(result) for result in results] == [Found, Unreadable, Found]


@pytest.mark.parametrize(
    "text", ["", "not there", "There is no red car (sorry).", "!!!!!!!!", "I see 3 dogs."]
)
def test_an_answer_without_a_box_is_an_empty_list_and_no_failure(text):
    assert parse_boxes(text, source=HD) == []


@pytest.mark.parametrize(
    "text",
    [
        "(" * 200_000,
        "(1,2)," * 50_000,
        "(" + "1" * 200_000,
        "( " * 100_000,
        "<|box_start|>" * 20_000,
        "<|object_ref_start|>" + "x" * 200_000,
    ],
    ids=["brackets", "points", "digits", "spaces", "markers", "label"],
)
def test_hostile_text_is_read_in_bounded_time_and_space(text):
    started = time.process_time()
    results = parse_boxes(text, source=HD)
    assert time.process_time() - started < 1.0
    assert len(results) <= MAX_BOXES


@given(
    st.text(max_size=200),
    st.lists(st.sampled_from(["<|box_start|>", "(1,2)", ",", "<|quad_end|>", "(-9,9e9)"])),
)
def test_no_text_raises_and_every_box_lies_in_the_picture(text, pieces):
    for result in parse_boxes(text.join(pieces) + text, source=HD):
        if isinstance(result, Found):
            assert result.box.x1 <= HD.width
            assert result.box.y1 <= HD.height


steps = st.integers(0, STEPS - 1)
spans = st.tuples(steps, steps).filter(lambda span: span[0] < span[1])
sizes = st.builds(Size, st.integers(1, 8000), st.integers(1, 8000))


@given(spans, spans, sizes)
def test_text_to_pixels_and_back_is_the_same_text(across, down, source):
    text = (
        f"<|object_ref_start|>a dog<|object_ref_end|>"
        f"<|box_start|>({across[0]},{down[0]}),({across[1]},{down[1]})<|box_end|>"
    )
    (found,) = parse_boxes(text, source=source)
    assert isinstance(found, Found)
    assert format_box(found.box, source=source, label="a dog") == text


@example(Size(1, 1), 0.0, 1.0, 1.0, 0.9999999999999999)
@given(sizes, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_pixels_to_text_and_back_are_off_by_a_step_and_a_half_slivers_by_two(source, a, b, c, d):
    x0, x1 = sorted((a * source.width, b * source.width))
    y0, y1 = sorted((c * source.height, d * source.height))
    if x0 == x1 or y0 == y1:
        return
    (found,) = parse_boxes(
        format_box(BoxPx(x0, y0, x1, y1), source=source, label="it"), source=source
    )
    assert isinstance(found, Found)
    assert found.adjusted == ()
    for side, ours, theirs in (
        (source.width, (x0, x1), (found.box.x0, found.box.x1)),
        (source.height, (y0, y1), (found.box.y0, found.box.y1)),
    ):
        step = side / STEPS
        # No step is left beyond the last one: a sliver at the far edge moves back by two.
        is_sliver = ours[1] - ours[0] < step
        tolerance = (2.01 if is_sliver else 1.6) * step
        assert theirs == pytest.approx(ours, abs=tolerance)


def test_the_question_begins_with_the_word_that_makes_qwen_write_boxes():
    assert grounding_question(" the red car. ") == "Find the red car."
