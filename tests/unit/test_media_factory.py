"""Clips of the tests: nothing is left of their encoders."""

import os

from tests.media_factory import Clip, make


def test_an_encoder_leaves_the_thread_the_priority_that_it_had(tmp_path):
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    make(tmp_path, Clip(num_frames=3, codec="av1", suffix=".mkv"))
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before
