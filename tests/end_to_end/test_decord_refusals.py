"""decord shows the plan's frames or says why not; docs/video.md lists every reason it has."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import BadInput, FailureCode
from tests.broken_media import (
    in_decoding_order,
    overwrite,
    packets_of,
    pixel_crop,
    with_edits,
    with_hidden,
)
from tests.looks import look
from tests.media_factory import Clip, ffmpeg, make
from tests.readers import NEEDS_DECORD

PAGE = Path(__file__).parents[2] / "docs" / "video.md"
DECORD = ("decord", "auto", 1, 1)
Build = Callable[[Path], Path]


def clip(**options: object) -> Build:
    return lambda folder: make(folder, Clip(**options))


def damaged(folder: Path) -> Path:
    path = make(folder, Clip())
    return overwrite(path, [packets_of(path)[12]], keep=5, value=0)


def high_definition(folder: Path) -> Path:
    path = folder / "hd.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=1280x720:d=0.2", "-pix_fmt", "yuv420p", str(path))
    return path


def turned_matroska(folder: Path) -> Path:
    upright, path = make(folder, Clip()), folder / "turned.mkv"
    ffmpeg("-display_rotation", "90", "-i", str(upright), "-c", "copy", str(path))
    return path


REFUSED: dict[str, Build] = {
    "it does not find every frame in this container": clip(suffix=".ts"),
    "the order of its frames is not that of its stamps": lambda folder: in_decoding_order(
        folder, Clip(b_frames=2), ".mp4"
    ),
    "some of its packets show no frame": lambda folder: with_hidden(
        folder, Clip(codec="vp8", suffix=".webm"), [3, 9]
    ),
    "it turns no video of this container upright": turned_matroska,
    "it does not mirror": clip(is_mirrored=True),
    "its colours would be others": high_definition,
    "it does not crop": pixel_crop,
    "some of its frames are damaged": damaged,
    "it cannot read it": clip(codec="av1", suffix=".mkv"),
}


@NEEDS_DECORD
@pytest.mark.parametrize("reason", REFUSED)
def test_decord_is_refused_by_name(reason: str, tmp_path: Path) -> None:
    path = REFUSED[reason](tmp_path)
    look(path, ("pyav", "auto", 1, 1), fps=2)
    with pytest.raises(BadInput) as raised:
        look(path, DECORD, fps=2)
    assert raised.value.code is FailureCode.NOT_DECODABLE
    assert raised.value.detail == f"not with decord: {reason}"


@NEEDS_DECORD
def test_what_an_edit_list_cuts_away_is_refused(tmp_path: Path) -> None:
    path = with_edits(make(tmp_path, Clip()), [(500, 1024 * 3)], tmp_path / "cut.mp4")
    with pytest.raises(BadInput, match="not with decord: some of its packets show no frame"):
        look(path, DECORD, fps=2)


def test_the_page_lists_every_reason() -> None:
    table = PAGE.read_text().partition("| refused | where |")[2]
    assert re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE) == [*REFUSED]
