"""Damage that nobody thought of: real clips with random bits flipped, cut, blanked, repeated."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import FailureCode
from tests.hostile import MUTANT_LIMITS, mutants, outcome_of_mutant

BATCH = 50


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, 500, BATCH))
def test_every_mutant_ends_in_frames_or_a_coded_failure_in_bounded_time(
    first: int, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(outcome_of_mutant, tmp_path, clip, seed)
            for clip, seed in mutants(range(first, first + BATCH))
        ]
    outcomes = [job.result() for job in jobs]
    assert {code for code, _ in outcomes} <= {"ok", *FailureCode}
    assert max(seconds for _, seconds in outcomes) < 2 * MUTANT_LIMITS.wall_s
