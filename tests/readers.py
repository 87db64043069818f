"""The readers that a test can be run with on this machine."""

import pytest

from pipeline.video.libraries import is_installed

NEEDS_DECORD = pytest.mark.skipif(not is_installed("decord"), reason="decord has no wheel here")
READERS = ("pyav", pytest.param("decord", marks=NEEDS_DECORD))
