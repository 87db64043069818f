"""Clips that are made here: nothing is left of their encoders."""

import os

import numpy as np
import pytest

from jobs.demo.drawn_clips import Encoding, write_frames
from tests.media_factory import Clip, make


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_an_encoder_leaves_the_thread_its_priority(codec, tmp_path):
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    frames = iter(np.zeros((3, 64, 64, 3), np.uint8))
    write_frames(tmp_path / "clip.mp4", frames, Encoding(width=64, height=64, codec=codec))
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_so_do_those_of_the_tests(codec, tmp_path):
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    make(tmp_path, Clip(num_frames=3, codec=codec, suffix=".mkv"))
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before
