"""Two fields are one picture, whether they come in one packet or in two."""

from pathlib import Path

import pytest

from tests.field_media import FIELDS, in_fields
from tests.looks import WAYS, look_or_refusal
from tests.player import shown

PLACES = [
    *((suffix, are_apart) for suffix in (".ts", ".mp4", ".mkv") for are_apart in (True, False)),
    (".h264", True),
]


@pytest.mark.parametrize(("suffix", "are_apart"), PLACES)
def test_a_picture_of_two_fields_is_shown_once(
    suffix: str, are_apart: bool, tmp_path: Path
) -> None:
    path = in_fields(tmp_path, suffix, are_apart=are_apart)
    times_s, numbers = zip(*shown(path), strict=True)
    assert numbers == (*range(FIELDS.num_frames),)
    for way in WAYS:
        for fps in (2, 100):
            seen = look_or_refusal(path, way, fps=fps)
            assert all(number == place and not is_damaged for _, place, number, is_damaged in seen)
            if seen and fps == 100:
                assert [time_s for time_s, *_ in seen] == pytest.approx(times_s, abs=0.002)
