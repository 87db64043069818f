"""SamplingPlan: the token limit, the right frames, and the other front ends' numbers."""

import dataclasses
import math
import time
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInput, ConfigError, FailureCode
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.presets import (
    linspace_indexes,
    stride_indexes,
    truncated_indexes,
)
from pipeline.families.qwen2_vl.sampling import PRESET_NAMES, QWEN2_VL
from pipeline.families.qwen2_vl.sizes import (
    PixelRange,
    TokenRange,
    bounded_resize,
    least_size,
    smart_resize,
)
from pipeline.types import MediaInfo, SamplingPlan, Size
from pipeline.video.plan import Planner
from pipeline.video.source import Source
from tests.plans import make_plan

LIMIT = 16_384
FACTOR = 28


def media_at(
    pts, *, time_base=(1, 1000), duration_s, width=640, height=360, is_still=False
) -> MediaInfo:
    """A stream with these stamps; only what a plan reads is worth a parameter."""
    stamps = np.asarray(pts, dtype=np.int64)
    return MediaInfo(
        container="mp4",
        codec="h264",
        pixel_format="yuv420p",
        width=width,
        height=height,
        coded_width=width,
        coded_height=height,
        rotation_deg=0,
        is_mirrored=False,
        sample_aspect_ratio=1.0,
        time_base_num=time_base[0],
        time_base_den=time_base[1],
        pts=stamps,
        is_key=np.ones(stamps.shape, dtype=np.bool_),
        duration_s=duration_s,
        declared_duration_s=duration_s,
        is_still=is_still,
    )


def video(width=640, height=360, seconds=30.0, rate=30, *, origin=0) -> MediaInfo:
    """A constant-rate video in a time base where every stamp is exact."""
    rate = Fraction(rate)
    total = max(1, round(seconds * rate))
    pts = origin + np.arange(total) * rate.denominator
    return media_at(
        pts,
        time_base=(1, rate.numerator),
        duration_s=float(total / rate),
        width=width,
        height=height,
    )


def still(width, height) -> MediaInfo:
    return media_at([0], duration_s=0.04, width=width, height=height, is_still=True)


def plan_of(media: MediaInfo, **options) -> SamplingPlan:
    return make_plan(media, source_id="sha256:0", **options)


def code_of(media: MediaInfo, **options) -> FailureCode:
    with pytest.raises(BadInput) as refusal:
        plan_of(media, **options)
    return refusal.value.code


def indexes_of(plan: SamplingPlan, media: MediaInfo) -> list[int]:
    """Positions in the packet index of every planned frame."""
    stamps = [stamp for window in plan.windows for stamp in window.frame_pts]
    return np.searchsorted(media.pts, stamps).tolist()


def check_promises(plan: SamplingPlan, media: MediaInfo) -> None:
    """What holds for every plan, whatever the preset."""
    first, num, den = int(media.pts[0]), media.time_base_num, media.time_base_den
    seconds = (media.pts - first) * num / den
    for window in plan.windows:
        assert window.num_frames % 2 == 0
        assert window.num_frames == len(window.times_s) == 2 * window.grid.t
        assert window.grid.size.height % FACTOR == 0
        assert window.grid.size.width % FACTOR == 0
        assert list(window.times_s) == sorted(window.times_s)
        assert window.start_s <= window.times_s[0]
        covered = [step for span in window.chunks for step in range(span.start, span.stop)]
        assert covered == list(range(window.grid.t))
        shown = np.searchsorted(seconds, window.times_s, side="right") - 1
        assert media.pts[shown].tolist() == list(window.frame_pts)


# The token limit

sides = st.integers(min_value=2, max_value=8192)
rates = st.sampled_from([Fraction(1, 10), 1, 12, Fraction(24_000, 1001), 25, 30, 60])
durations = st.floats(0.1, 600.0) | st.floats(600.0, 24 * 3600.0)


def budget_clip(width, height, seconds, rate) -> MediaInfo:
    """Up to 24 hours; long ones get fewer source frames, so that a thousand examples stay quick."""
    return video(width, height, seconds, rate if seconds < 1000 else 4)


@settings(max_examples=400, deadline=None)
@given(sides, sides, durations, rates, st.floats(min_value=0.01, max_value=60.0))
def test_one_window_never_exceeds_the_token_limit(width, height, seconds, rate, fps):
    if max(width, height) > 200 * min(width, height):
        width, height = height, height
    media = budget_clip(width, height, seconds, rate)
    plan = plan_of(media, fps=fps)
    assert len(plan.windows) == 1
    assert plan.num_tokens <= LIMIT
    assert plan.num_frames <= 768
    check_promises(plan, media)


@settings(max_examples=50, deadline=None)
@given(sides, sides, durations, rates, st.sampled_from([0.0, 1.0, 3.0]))
def test_no_window_of_many_exceeds_the_token_limit(width, height, seconds, rate, overlap_s):
    if max(width, height) > 200 * min(width, height):
        width, height = height, height
    media = budget_clip(width, height, seconds, rate)
    plan = plan_of(media, long="windows", overlap_s=overlap_s)
    assert max(window.grid.num_tokens for window in plan.windows) <= LIMIT
    assert max(window.num_frames for window in plan.windows) <= 768
    assert len({window.grid.size for window in plan.windows}) == 1
    check_promises(plan, media)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(min_value=28, max_value=9000),
    st.floats(min_value=1.0, max_value=200.0),
    st.integers(min_value=1, max_value=LIMIT),
    st.integers(min_value=1, max_value=100_000),
    st.integers(min_value=784, max_value=2_000_000),
)
def test_a_smaller_window_and_any_pixel_range_hold_too(
    width, ratio, max_window_tokens, min_pixels, max_pixels
):
    height = math.ceil(width / ratio)
    media = video(width, height, seconds=100)
    options = {
        "max_window_tokens": max_window_tokens,
        "min_pixels": min(min_pixels, max_pixels),
        "max_pixels": max_pixels,
    }
    least = least_size(Size(height=height, width=width), options["min_pixels"], factor=FACTOR)
    if least.num_pixels > max_window_tokens * 784:
        assert code_of(media, **options) is FailureCode.TOKEN_BUDGET
        return
    plan = plan_of(media, **options)
    assert plan.num_tokens <= max_window_tokens
    size = plan.windows[0].grid.size
    assert size.num_pixels <= max_pixels
    assert size.num_pixels >= options["min_pixels"] or least.num_pixels > max_pixels


@given(sides, sides)
def test_an_image_never_exceeds_the_token_limit(width, height):
    if max(width, height) <= 200 * min(width, height):
        assert plan_of(still(width, height)).num_tokens <= LIMIT


# Known numbers: shared/qwen2-vl.md 2.3, made with the front ends themselves

HUB = {"min_pixels": 3136, "max_pixels": 12_845_056}  # preprocessor_config.json of the checkpoints
BUDGETS = [
    # width, height, s, frames, 0.0.8, 0.0.14, hf5, hf5 + hub, paper, paper size
    (640, 360, 30, 60, 8970, 8970, 8970, 8970, 8970, (644, 364)),
    (640, 360, 60, 120, 17940, 17940, 17940, 17940, 15840, (616, 336)),
    (640, 360, 300, 600, 36000, 89700, 89700, 89700, 13500, (252, 140)),
    (1280, 720, 10, 20, 7200, 7200, 7200, 11960, 7200, (1008, 560)),
    (1280, 720, 30, 60, 21600, 21600, 21600, 35880, 15810, (868, 476)),
    (1280, 720, 120, 240, 22800, 86400, 86400, 143520, 14400, (420, 224)),
    (1280, 720, 384, 768, 46080, 105984, 276480, 459264, 12288, (224, 112)),
    (1280, 720, 3600, 768, 46080, 105984, 276480, 459264, 12288, (224, 112)),
    (1920, 1080, 30, 60, 21600, 21600, 21600, 80730, 15810, (868, 476)),
]


@pytest.mark.parametrize("row", BUDGETS, ids=lambda row: f"{row[0]}x{row[1]}-{row[2]}s")
def test_every_front_end_spends_the_tokens_it_is_known_to_spend(row):
    width, height, seconds, num_frames, *tokens, paper_tokens, paper_size = row
    media = video(width, height, seconds)
    plans = [
        plan_of(media, preset="qwen-vl-utils-0.0.8"),
        plan_of(media, preset="qwen-vl-utils-0.0.14"),
        plan_of(media, preset="hf5"),
        plan_of(media, preset="hf5", **HUB),
    ]
    assert [plan.num_frames for plan in plans] == [num_frames] * 4
    assert [plan.num_tokens for plan in plans] == tokens
    paper = plan_of(media)
    assert (paper.num_frames, paper.num_tokens) == (num_frames, paper_tokens)
    assert paper.windows[0].grid.size == Size(width=paper_size[0], height=paper_size[1])


SAMPLERS = [
    ("qwen-vl-utils-0.0.14", 60, [0, 15, 30, 46], [884, 899]),
    ("hf5", 60, [0, 15, 30, 45], [870, 885]),
    ("vllm", 32, [0, 29, 58, 87], [870, 899]),
    ("paper", 60, [0, 15, 30, 45], [870, 885]),
]


@pytest.mark.parametrize(("preset", "count", "head", "tail"), SAMPLERS)
def test_every_front_end_takes_the_frames_it_is_known_to_take(preset, count, head, tail):
    media = video(seconds=30, rate=30)
    indexes = indexes_of(plan_of(media, preset=preset), media)
    assert (len(indexes), indexes[:4], indexes[-2:]) == (count, head, tail)


@given(st.integers(min_value=1, max_value=100_000), st.integers(min_value=1, max_value=768))
def test_index_samplers_stay_inside_the_video(total, count):
    count = min(count, total)
    for sampler in (linspace_indexes, stride_indexes, truncated_indexes):
        indexes = sampler(total, count)
        assert len(indexes) == count
        assert indexes == sorted(indexes)
        assert indexes[0] == 0
        assert indexes[-1] < total


SIZES = [  # size, pixel range -> transformers 5.23 (ran once), qwen-vl-utils (clamps before)
    ((640, 360), (3136, 12_845_056), (644, 364), (644, 364)),
    ((10, 600), (3136, 12_845_056), (28, 448), (28, 588)),
    ((42, 70), (3136, 12_845_056), (56, 56), (56, 56)),
    ((3, 3), (3136, 12_845_056), (56, 56), (56, 56)),
    ((8192, 8192), (3136, 12_845_056), (3584, 3584), (3584, 3584)),
    ((1079, 1921), (100_352, 602_112), (560, 1008), (560, 1008)),
    ((5600, 28), (100_352, 602_112), (5600, 28), (5600, 28)),
    ((64, 48), (100_352, 602_112), (392, 280), (392, 280)),
]


@pytest.mark.parametrize(("source", "area", "transformers", "qwen_vl_utils"), SIZES)
def test_sizes_equal_the_front_ends_own(source, area, transformers, qwen_vl_utils):
    size = Size(width=source[0], height=source[1])
    for least_side, expected in ((0, transformers), (FACTOR, qwen_vl_utils)):
        resized = smart_resize(size, PixelRange(*area), factor=FACTOR, least_side=least_side)
        assert (resized.width, resized.height) == expected


def clamped(size: Size, area: PixelRange) -> Size:
    """As qwen-vl-utils resizes."""
    return smart_resize(size, area, factor=FACTOR, least_side=FACTOR)


def test_a_size_within_the_limit_is_the_reference_size():
    area = TokenRange(128, 768).pixels(GEOMETRY)
    for width, height in [(640, 360), (1920, 1080), (64, 48), (1079, 1921)]:
        size = Size(width=width, height=height)
        assert bounded_resize(size, area, factor=FACTOR) == clamped(size, area)


BREAKS_THE_REFERENCE = [  # width, height, seconds: smart_resize alone would exceed 16,384 tokens
    (60, 50, 300),  # enlarging rounds up past the share
    (5600, 28, 400),  # the short side cannot shrink
    (40, 8000, 400),
]


@pytest.mark.parametrize(("width", "height", "seconds"), BREAKS_THE_REFERENCE)
def test_the_limit_holds_where_the_plain_resize_breaks_it(width, height, seconds):
    plan = plan_of(video(width, height, seconds))
    share = LIMIT / (plan.num_frames // 2)
    area = TokenRange(min(128, share), min(768, share)).pixels(GEOMETRY)
    plain = clamped(Size(width=width, height=height), area)
    assert plain.num_pixels // 784 * (plan.num_frames // 2) > LIMIT
    assert plan.num_tokens <= LIMIT


# Long videos


def test_a_24_minute_clip_every_12_s_is_120_frames_in_one_window():
    media = video(1280, 720, 24 * 60, 24)
    plan = plan_of(media, fps=1 / 12)
    assert [window.times_s for window in plan.windows] == [tuple(range(0, 24 * 60, 12))]
    assert plan.num_tokens == 60 * 12 * 22  # 616x336
    assert plan.fps == pytest.approx(1 / 12)


def test_the_same_24_minutes_limited_to_120_frames_give_the_same_frames():
    media = video(1280, 720, 24 * 60, 24)
    by_rate, by_count = plan_of(media, fps=1 / 12), plan_of(media, max_frames=120)
    assert by_rate.windows == by_count.windows


def test_fit_spreads_768_frames_over_a_day():
    media = video(seconds=24 * 3600, rate=4)
    plan = plan_of(media)
    times = plan.windows[0].times_s
    assert len(times) == 768
    assert set(np.diff(times)) == {112.5}


def test_fit_gives_up_frames_before_the_least_pixels_asked_for():
    media = video(1280, 720, 384)
    plan = plan_of(media, min_pixels=512 * 784)
    assert plan.windows[0].grid.size.num_pixels >= 512 * 784
    assert 0.9 * LIMIT < plan.num_tokens <= LIMIT
    assert np.ptp(np.diff(plan.windows[0].times_s)) < 1e-9


def test_windows_keep_rate_and_size():
    media = video(1280, 720, 60)
    plan = plan_of(media, long="windows")
    assert plan.fps == 2.0
    assert {window.grid.size for window in plan.windows} == {Size(width=1008, height=560)}
    assert [window.grid.t for window in plan.windows] == [20, 20, 20]  # 22 of 720 tokens would fit
    assert [(window.start_s, window.end_s) for window in plan.windows] == [
        (0, 20),
        (20, 40),
        (40, 60),
    ]
    assert [time for window in plan.windows for time in window.times_s] == list(
        np.arange(0, 60, 0.5)
    )


def test_neighbouring_windows_share_the_overlap():
    plan = plan_of(video(1280, 720, 60), long="windows", overlap_s=4.0)
    for before, after in zip(plan.windows[:-1], plan.windows[1:], strict=True):
        assert before.end_s - after.start_s == 4.0
        assert before.frame_pts[-8:] == after.frame_pts[:8]
    assert {time for window in plan.windows for time in window.times_s} == set(
        np.arange(0, 60, 0.5)
    )


def test_an_overlap_of_more_than_half_a_window_is_refused_where_windows_are_needed():
    options = {"long": "windows", "overlap_s": 12.0}  # 22 s of 720 tokens each in a window
    assert code_of(video(1280, 720, 60), **options) is FailureCode.TOKEN_BUDGET
    assert len(plan_of(video(1280, 720, 20), **options).windows) == 1


def test_a_short_video_has_one_window_either_way():
    media = video(seconds=10)
    assert plan_of(media, long="windows").windows == plan_of(media).windows


def test_planning_ten_hours_at_60_fps_is_quick_and_takes_no_list_of_all_frames():
    media = video(seconds=36_000, rate=60)
    tracemalloc.start()
    started = time.process_time()  # a machine that pauses takes none of it
    plan = plan_of(media)
    elapsed_s = time.process_time() - started
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.num_frames == 768
    assert elapsed_s < 1.0
    assert peak_bytes < 1_000_000 < media.pts.nbytes


# The right frames


@pytest.mark.parametrize("total", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_very_short_videos_are_planned(total, preset):
    media = video(seconds=total / 30, rate=30)
    plan = plan_of(media, preset=preset)
    check_promises(plan, media)


@pytest.mark.parametrize(
    ("total", "expected"),
    [(1, [0, 0]), (2, [0, 1]), (3, [0, 1, 2, 2]), (5, [0, 1, 2, 3]), (4, [0, 1, 2, 3])],
)
def test_fewer_frames_than_wanted_are_all_taken_and_the_last_completes_a_pair(total, expected):
    media = video(seconds=total / 30, rate=30)
    assert indexes_of(plan_of(media), media) == expected


def test_an_odd_video_slower_than_the_rate_repeats_its_last_frame():
    media = video(seconds=7, rate=1)
    assert indexes_of(plan_of(media), media) == [0, 1, 2, 3, 4, 5, 6, 6]


def test_variable_rates_are_sampled_evenly_in_time():
    burst, gap, tail = range(0, 1000, 10), [1000, 3000], range(5000, 9000, 40)
    media = media_at([*burst, *gap, *tail], duration_s=9.0)
    window = plan_of(media).windows[0]
    assert window.times_s == tuple(np.arange(0, 9, 0.5))
    assert window.frame_pts[:11] == (0, 500, 1000, 1000, 1000, 1000, 3000, 3000, 3000, 3000, 5000)


def test_a_sparse_slide_show_loses_no_slide():
    slides = [0, 400, 9000, 9100, 31_000, 58_000]
    media = media_at(slides, duration_s=60.0)
    assert list(plan_of(media).windows[0].frame_pts) == slides


@given(
    st.lists(st.integers(min_value=1, max_value=5000), min_size=1, max_size=300),
    st.integers(min_value=-(10**15), max_value=10**15),
    st.sampled_from([(1, 1000), (1, 90_000), (1001, 30_000), (1, 1_000_000_000), (1, 25)]),
    st.sampled_from(PRESET_NAMES),
)
@settings(max_examples=200, deadline=None)
def test_every_planned_frame_is_the_one_a_player_shows(gaps, origin, time_base, preset):
    pts = origin + np.cumsum([0, *gaps])
    duration_s = float((pts[-1] - pts[0] + 1) * Fraction(*time_base))
    media = media_at(pts, time_base=time_base, duration_s=duration_s)
    check_promises(plan_of(media, preset=preset), media)


@pytest.mark.parametrize("origin", [-90_000, 0, 8_589_934_592])
def test_the_first_stamp_does_not_matter(origin):
    media = video(origin=origin)
    plan = plan_of(media)
    assert indexes_of(plan, media) == list(range(0, 900, 15))
    assert plan.windows[0].times_s == tuple(np.arange(0, 30, 0.5))


def test_stamps_rounded_to_milliseconds_do_not_shift_frames():
    """29.97 fps in a container of 1 ms ticks: half of the sampled stamps round up."""
    rate = Fraction(30_000, 1001)
    pts = [math.floor(1000 * index / rate + Fraction(1, 2)) for index in range(900)]
    media = media_at(pts, duration_s=30.03)
    assert indexes_of(plan_of(media), media) == list(range(0, 900, 15))


def test_coarse_ticks_are_taken_at_their_word():
    """At 25 fps in 1/25 s ticks frame 13 comes at 0.52 s, so 0.5 s still shows frame 12."""
    media = video(seconds=10, rate=25)
    assert indexes_of(plan_of(media), media)[:3] == [0, 12, 25]


# Ranges


@pytest.mark.parametrize(("most", "taken"), [(2, 4), (7, 6), (8, 8), (60, 60), (1000, 60)])
def test_a_source_of_its_own_takes_no_more_frames_than_it_says(most, taken):
    """Whole temporal patches, spread over all of it; never less than the least of a plan."""
    source = Source(uri="a", path=Path("a"), fps=2.0, max_frames=most)
    media = video(seconds=30.0)
    plan = Planner(family=QWEN2_VL).of(source).plan(media, source_id="test")
    assert plan.num_frames == taken
    assert plan.windows[0].times_s[-1] > 30.0 - 2 * 30.0 / taken


def test_a_range_is_planned_as_if_it_were_the_video():
    media = video(seconds=60)
    window = plan_of(media, start_s=10.0, end_s=20.0).windows[0]
    assert window.times_s == tuple(np.arange(10, 20, 0.5))
    assert (window.start_s, window.end_s) == (10.0, 20.0)


def test_a_range_is_cut_to_the_video():
    media = video(seconds=10)
    assert plan_of(media, start_s=-5.0, end_s=99.0).windows == plan_of(media).windows


def test_a_range_inside_one_frame_shows_that_frame():
    media = video(seconds=10, rate=1)
    plan = plan_of(media, start_s=3.2, end_s=3.6)
    assert indexes_of(plan, media) == [3, 3]
    assert plan.windows[0].times_s == (3.2, 3.2)


def test_index_presets_take_the_frames_stamped_inside_the_range():
    media = video(seconds=60)
    indexes = indexes_of(
        plan_of(media, preset="qwen-vl-utils-0.0.14", start_s=10.01, end_s=20), media
    )
    assert (indexes[0], indexes[-1]) == (301, 600)  # ceil(10.01 * 30), floor(20 * 30)


EMPTY = [(30.0, None), (31.0, 40.0), (5.0, 5.0), (6.0, 5.0), (None, 0.0), (None, -1.0)]


@pytest.mark.parametrize(("start_s", "end_s"), EMPTY)
def test_an_empty_range_is_refused(start_s, end_s):
    with pytest.raises(BadInput) as refusal:
        plan_of(video(), start_s=start_s, end_s=end_s)
    assert refusal.value.code is FailureCode.EMPTY_RANGE


def test_a_range_without_a_stamp_is_empty_for_index_presets():
    with pytest.raises(BadInput) as refusal:
        plan_of(video(rate=1), preset="hf5", start_s=3.2, end_s=3.6)
    assert refusal.value.code is FailureCode.EMPTY_RANGE


# Images


def test_a_224_pixel_image_is_66_tokens_with_its_two_markers():
    plan = plan_of(still(224, 224))
    assert plan.num_tokens + 2 == 66
    assert plan.windows[0].frame_pts == (0, 0)
    assert plan.windows[0].times_s == (0.0, 0.0)


IMAGES = [  # width, height, options, tokens
    (100, 100, {}, 100),  # 100 * 28 * 28 at least
    (2, 2, {}, 100),
    (3584, 3584, {}, LIMIT),
    (20_000, 20_000, {}, 127 * 127),
    (224, 224, {"min_pixels": 100 * 784}, 100),  # asked for, so enlarged
    (225, 225, {"min_pixels": 3136}, 64),
    (4000, 3000, {"max_pixels": 1280 * 784}, 41 * 30),
    (4000, 3000, {"preset": "hf5"}, 41 * 30),
    (225, 225, {"preset": "qwen-vl-utils-0.0.14"}, 64),
]


@pytest.mark.parametrize(("width", "height", "options", "num_tokens"), IMAGES)
def test_images_stay_in_their_pixel_range(width, height, options, num_tokens):
    assert plan_of(still(width, height), **options).num_tokens == num_tokens


def test_a_range_means_nothing_to_an_image():
    assert plan_of(still(224, 224), start_s=5.0).num_frames == 2


# Refusals


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("size", [(10_000, 49), (2, 402)])
def test_more_than_200_to_1_is_refused(size, preset):
    assert code_of(video(*size), preset=preset) is FailureCode.ASPECT_RATIO
    assert code_of(still(*size), preset=preset) is FailureCode.ASPECT_RATIO


def test_what_no_plan_can_hold_is_refused():
    assert code_of(media_at([], duration_s=0.0)) is FailureCode.TRUNCATED
    assert code_of(video(), min_pixels=LIMIT * 784 + 1) is FailureCode.TOKEN_BUDGET
    endless = video(seconds=20_000, rate=60)
    assert code_of(endless, fps=60, long="windows") is FailureCode.TOO_MANY_FRAMES


BAD_OPTIONS = [
    {"preset": "qwen"},
    {"fps": 0.0},
    {"fps": math.nan},
    {"fps": math.inf},
    {"long": "short"},
    {"long": "windows", "preset": "hf5"},
    {"long": "windows", "overlap_s": -1.0},
    {"overlap_s": 1.0},
    {"start_s": math.nan},
    {"end_s": math.inf},
    {"min_pixels": 0},
    {"min_pixels": 2000, "max_pixels": 1000},
    {"max_pixels": 783},
    {"max_window_tokens": 0},
    {"max_window_tokens": LIMIT + 1},
    {"chunk_tokens": 0},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_a_bad_option_is_the_operators_fault(options):
    with pytest.raises(ConfigError):
        plan_of(video(seconds=600), **options)


# Chunks and the hash


CHUNKINGS = [  # width, height, s, chunk_tokens, steps of each chunk
    (640, 360, 30, 1024, [3] * 10),  # 299 tokens a step
    (640, 360, 10, 1024, [2] * 5),
    (640, 360, 14, 1024, [3, 3, 3, 3, 2]),
    (640, 360, 4, 1024, [1] * 4),
    (1280, 720, 10, 1, [1] * 10),  # a chunk holds one temporal patch even if that is too much
    (640, 360, 10, 100_000, [2] * 5),
    (168, 112, 10, 1024, [2] * 5),  # 117 tokens a step: the paper's least
]


@pytest.mark.parametrize(("width", "height", "seconds", "chunk_tokens", "steps"), CHUNKINGS)
def test_chunks_near_the_target_and_several_even_in_a_short_clip(
    width, height, seconds, chunk_tokens, steps
):
    window = plan_of(video(width, height, seconds), chunk_tokens=chunk_tokens).windows[0]
    assert [span.num_steps for span in window.chunks] == steps


HASHES = [  # of plans made before a grid knew its geometry
    ("4fcb1be80dc4c940", video(seconds=4), {}),
    ("e0d44dcfa271fc29", video(1920, 1080, 3600, 25), {}),
    ("46d5afd276b86ec9", video(1280, 720, 60), {"long": "windows", "overlap_s": 4.0}),
    (
        "a1f90be0aa1e3c4f",
        video(seconds=60),
        {"start_s": 10.0, "end_s": 20.0, "max_pixels": 200 * 784},
    ),
    ("c2416338d71a45c0", video(seconds=30), {"preset": "qwen-vl-utils-0.0.8"}),
    ("6133a12646e90902", video(seconds=30), {"preset": "qwen-vl-utils-0.0.14"}),
    ("25ccf2a6ac417efb", video(seconds=30), {"preset": "hf5"}),
    ("20790a95df26947e", video(seconds=30), {"preset": "vllm"}),
    ("70c3a2dc0a5484cc", still(225, 301), {}),
    ("bf2fda21758586a7", still(4000, 3000), {"preset": "hf5"}),
]


@pytest.mark.parametrize(
    ("expected", "media", "options"), HASHES, ids=lambda value: str(value)[:16]
)
def test_the_hash_is_the_same_on_every_machine_and_in_every_version(expected, media, options):
    assert plan_of(media, **options).hash == expected


def test_the_hash_changes_with_anything_that_changes_the_plan():
    media = video(seconds=60)
    changes = [{}, {"fps": 1.0}, {"preset": "hf5"}, {"end_s": 59.0}, {"chunk_tokens": 300}]
    plans = [plan_of(media, **change) for change in changes]
    plans.append(make_plan(media, source_id="sha256:1"))
    assert len({plan.hash for plan in plans}) == len(plans)
    assert plan_of(media).hash == plans[0].hash


def test_a_plan_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan_of(video()).fps = 3.0
