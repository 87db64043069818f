"""Promises of the way from decoded pixels to planned frames."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, ConfigError, FailureCode
from pipeline.types import Size
from pipeline.video.frames import fill_gaps, orientation, resize, upright
from pipeline.video.libraries import Reader
from pipeline.video.reader import Media, open_media
from pipeline.video.seeks import START, Seek, cut_stretches
from pipeline.video.source import Source
from tests.media_factory import Clip, make, read_barcode
from tests.plans import make_plan
from tests.readers import READERS
from tests.tiny_model import import_transformers


@pytest.mark.parametrize(
    ("source", "target"),
    [((48, 64), (28, 56)), ((48, 64), (84, 112)), ((720, 1280), (112, 224)), ((65, 49), (56, 28))],
)
def test_resize_is_bit_identical_to_torchvision(
    source: tuple[int, int], target: tuple[int, int], torchvision_resize
) -> None:
    frames = torch.randint(0, 256, (2, *source, 3), dtype=torch.uint8)
    expected = torchvision_resize(frames.permute(0, 3, 1, 2), target).permute(0, 2, 3, 1)
    assert torch.equal(resize(frames, Size(*target)), expected)


@pytest.fixture(scope="module")
def torchvision_resize():
    import_transformers()  # makes torchvision importable
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    def call(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return functional.resize(frames, list(size), InterpolationMode.BICUBIC, antialias=True)

    return call


def test_resizing_to_the_same_size_gives_a_copy_of_its_own() -> None:
    frames = torch.zeros(1, 28, 28, 3, dtype=torch.uint8)
    resized = resize(frames, Size(28, 28))
    frames += 1
    assert resized.sum() == 0


@pytest.mark.parametrize("shape", [(28, 28, 3), (1, 3, 28, 28), (1, 28, 28, 4)])
def test_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"frames\.shape"):
        resize(torch.zeros(shape, dtype=torch.uint8), Size(28, 28))


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((), (0, False)),
        ((65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), (0, False)),
        ((0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30), (90, False)),
        ((-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30), (180, False)),
        ((0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30), (270, False)),
        ((-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), (0, True)),
        ((65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30), (180, True)),
        ((46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30), (0, False)),
        ((0,) * 9, (0, False)),
    ],
)
def test_a_display_matrix_becomes_a_turn_and_a_mirror(matrix, expected) -> None:
    assert orientation(matrix) == expected


def test_a_picture_is_mirrored_then_turned_clockwise() -> None:
    frame = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)[:, :, None].expand(2, 2, 3)
    turned = upright(frame, rotation_deg=90, is_mirrored=False)[:, :, 0]
    assert turned.tolist() == [[3, 1], [4, 2]]
    mirrored = upright(frame, rotation_deg=90, is_mirrored=True)[:, :, 0]
    assert mirrored.tolist() == [[4, 2], [3, 1]]


@pytest.mark.parametrize(
    ("given_frames", "expected"),
    [
        ([1, 2], [(1, False), (2, False)]),
        ([1, None, None, 4], [(1, False), (1, True), (1, True), (4, False)]),
        ([None, None, 3, None], [(3, True), (3, True), (3, False), (3, True)]),
    ],
)
def test_a_missing_frame_becomes_a_marked_copy_of_the_nearest_good_one(
    given_frames, expected
) -> None:
    frames = (None if value is None else torch.tensor(value) for value in given_frames)
    assert [(int(frame), damage) for frame, damage in fill_gaps(frames)] == expected


def test_without_one_good_frame_the_video_has_failed() -> None:
    with pytest.raises(BadInput) as raised:
        list(fill_gaps(iter([None, None])))
    assert raised.value.code is FailureCode.NOT_DECODABLE


@settings(deadline=None, max_examples=200)
@given(
    is_key=st.lists(st.booleans(), min_size=1, max_size=120),
    places=st.sets(st.integers(0, 119), min_size=1),
    seek=st.sampled_from(["auto", "always", "never"]),
    num_children=st.integers(1, 4),
)
def test_a_schedule_has_every_wanted_frame_once_and_starts_each_stretch_at_a_keyframe_before_it(
    is_key: list[bool], places: set[int], seek: Seek, num_children: int
) -> None:
    wanted = [place for place in sorted(places) if place < len(is_key)] or [0]
    stretches = cut_stretches(wanted, is_key=np.array(is_key), seek=seek, num_children=num_children)
    assert [place for stretch in stretches for place in stretch.wanted] == wanted
    for stretch in stretches:
        assert stretch.key == START or is_key[stretch.key]
        assert stretch.key <= stretch.wanted[0]


def test_the_cheaper_way_is_taken() -> None:
    is_key = np.arange(600) % 60 == 0
    every_5th, every_15th, every_150th = (list(range(0, 600, step)) for step in (5, 15, 150))
    assert len(cut_stretches(every_5th, is_key=is_key)) == 1
    # Fourteen frames at the end of each group are wanted by nobody.
    keys = np.flatnonzero(is_key).tolist()
    assert [stretch.key for stretch in cut_stretches(every_15th, is_key=is_key)] == keys
    sparse = cut_stretches(every_150th, is_key=is_key)
    assert [stretch.key for stretch in sparse] == [0, 120, 300, 420]
    shared = cut_stretches(every_5th, is_key=is_key, num_children=2)
    assert len(shared) == 10
    for stretch, following in pairwise(shared):
        assert stretch.wanted[-1] < following.key


def numbers(media: Media, *, fps: float, reader: Reader = "pyav") -> list[int | None]:
    plan = make_plan(media.info, source_id="test", fps=fps)
    chunks = [chunk for window in plan.windows for chunk in media.read(plan, window, reader=reader)]
    return [read_barcode(frame.numpy()) for chunk in chunks for frame in chunk.frames]


@pytest.mark.parametrize("reader", READERS)
def test_the_frames_of_the_plan_come_in_order(tmp_path: Path, reader: Reader) -> None:
    path = make(tmp_path, Clip(num_frames=24, b_frames=2))
    with open_media(Source.of(path)) as media:
        assert numbers(media, fps=12, reader=reader) == list(range(24))


def test_a_reader_that_is_not_installed_is_refused_by_name(tmp_path: Path, monkeypatch) -> None:
    path = make(tmp_path, Clip(num_frames=24))
    monkeypatch.setitem(sys.modules, "decord", None)
    with open_media(Source.of(path)) as media, pytest.raises(ConfigError, match="reader decord"):
        numbers(media, fps=12, reader="decord")


def test_one_open_video_can_be_read_again_and_again(tmp_path: Path) -> None:
    path = make(tmp_path, Clip(num_frames=24))
    with open_media(Source.of(path)) as media:
        assert numbers(media, fps=12) == numbers(media, fps=12) == list(range(24))


def test_a_reader_that_is_dropped_halfway_leaves_the_video_readable(tmp_path: Path) -> None:
    path = make(tmp_path, Clip(num_frames=24))
    with open_media(Source.of(path)) as media:
        plan = make_plan(media.info, source_id="test", fps=12)
        chunks = media.read(plan, plan.windows[0])
        next(chunks)
        chunks.close()
        assert numbers(media, fps=12) == list(range(24))


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_few_and_odd_frames_make_whole_pairs(tmp_path: Path, num_frames: int) -> None:
    path = make(tmp_path, Clip(num_frames=num_frames, fps=2))
    with open_media(Source.of(path)) as media:
        seen = numbers(media, fps=2)
    assert len(seen) % 2 == 0
    assert set(seen) == set(range(num_frames))


def test_a_plan_of_another_video_is_refused(tmp_path: Path) -> None:
    long, short = make(tmp_path, Clip(num_frames=24), "long"), make(tmp_path, Clip(num_frames=4))
    with open_media(Source.of(long)) as other, open_media(Source.of(short)) as media:
        plan = make_plan(other.info, source_id="test", fps=12)
        with pytest.raises(ValueError, match="does not have"):
            next(media.read(plan, plan.windows[0]))


def test_decoder_threads_change_no_pixel(tmp_path: Path) -> None:
    path = make(tmp_path, Clip(num_frames=30, b_frames=3, gop=15, width=160, height=96))

    def frames(threads: int) -> torch.Tensor:
        with open_media(Source.of(path), DecodeLimits(threads=threads)) as media:
            plan = make_plan(media.info, source_id="test", fps=2)
            return torch.cat([chunk.frames for chunk in media.read(plan, plan.windows[0])])

    assert torch.equal(frames(1), frames(3))
