"""Files of the kinds that people reported, where they are at hand; the tests beside this one make
files of the same kinds themselves.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadInput, FailureCode
from pipeline.video.reader import open_media
from pipeline.video.source import Source
from tests.looks import WAYS, Seen, Way, look
from tests.plans import make_plan
from tests.player import numbers

FOLDER = Path(__file__).parents[3] / "shared" / "cases" / "video"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the files are not here")
PYAV = [way for way in WAYS if way[0] == "pyav"]

Check = Callable[[Path, Way], None]


def counts(num_frames: int, *, damaged: range = range(0), fps: float = 100) -> Check:
    """Each picture bears the number of its place, but for damaged ones."""

    def check(path: Path, way: Way) -> None:
        seen = look(path, way, fps=fps)
        assert [place for _, place, _, _ in seen] == list(range(num_frames))
        assert {place for _, place, _, is_damaged in seen if is_damaged} == {*damaged}
        assert all(number == place for _, place, number, is_damaged in seen if not is_damaged)

    return check


def packed_b_frames(path: Path, way: Way) -> None:
    counts(48)(path, way)
    assert all(number == int(time_s * 25) for time_s, _, number, _ in look(path, way, fps=2))


def repeats(path: Path, way: Way) -> None:
    truth = numbers(path)
    for fps in (2, 100):
        seen = look(path, way, fps=fps)
        assert all(number == truth[place] for _, place, number, _ in seen)
        assert not any(is_damaged for *_, is_damaged in seen)


def repeats_at_times(path: Path, way: Way) -> None:
    repeats(path, way)
    assert "count_mismatch" not in flags(path)
    for time_s, _, number, _ in look(path, way, fps=2):
        assert number == int(time_s * 25) // 2


def late(path: Path, way: Way) -> None:
    seen = by_time(look(path, way, fps=2))
    assert min(seen) >= 2
    assert seen[3.0] == 12
    assert set(by_time(look(path, way, fps=2, start_s=5.0))) >= {5.0, 5.5, 6.0, 6.5}


def held(path: Path, way: Way) -> None:
    assert set(by_time(look(path, way, fps=2, start_s=10.0)).values()) == {3}


def cropped(path: Path, way: Way) -> None:
    counts(24)(path, way)
    reader, seek, children, _ = way
    with open_media(Source.of(path)) as media:
        assert (media.info.width, media.info.height) == (128, 64)
        plan = make_plan(media.info)
        for chunk in media.read(plan, plan.windows[0], reader=reader, seek=seek, children=children):
            assert np.ptp(chunk.frames.numpy(), axis=3).max() < 60  # no red


def joined(path: Path, way: Way) -> None:
    """FFmpeg's program holds the last picture of a part for as long as the next one's decoder fills
    (0.13 s here, 4.13 s in all); then picture 10 would come later. Parts follow at once instead.
    """
    with open_media(Source.of(path)) as media:
        assert media.info.duration_s == pytest.approx(4.1, abs=0.14)
    assert by_time(look(path, way, fps=2))[3.0] == 10


def unread(path: Path, way: Way) -> None:
    """Its table of chunks points beside them: FFmpeg's program shows nothing of it either."""
    with pytest.raises(BadInput) as raised:
        look(path, way, fps=2)
    assert raised.value.code is FailureCode.NOT_DECODABLE
    assert numbers(path, may_fail=True) == []


def whole(path: Path, way: Way) -> None:
    counts(48)(path, way)
    assert "truncated" not in flags(path)


def own_rate(path: Path, way: Way) -> None:
    with open_media(Source.of(path)) as media:
        assert "no_timestamps" in media.info.flags
        assert media.info.time_base_den == 60 * media.info.time_base_num
    counts(60)(path, way)


def flags(path: Path) -> tuple[str, ...]:
    with open_media(Source.of(path)) as media:
        return media.info.flags


def by_time(seen: Seen) -> dict[float, int | None]:
    return {time_s: number for time_s, _, number, _ in seen}


CASES: dict[str, Check] = {
    "packed25.avi": packed_b_frames,
    "nvop.mp4": repeats,
    "nvop2.avi": repeats_at_times,
    "dmg_dm0_nal_key.mp4": counts(120, damaged=range(48, 60)),
    "dmg_dmb_zero_key.mp4": counts(120, damaged=range(48, 60)),
    "dmg_dm0_zero_key_gop.mp4": counts(120, damaged=range(48, 60)),
    "late_video.mp4": late,
    "late_video.mkv": late,
    "slides_audio.mp4": held,
    "clap.mp4": cropped,
    "crop.mkv": cropped,
    "cat30_10.ts": joined,
    "midpacket.ts": counts(48),
    "ts204.ts": counts(48),
    "uuidfirst.mp4": unread,
    "tail_text.mp4": whole,
    "raw60.h264": own_rate,
}


@pytest.mark.parametrize("way", PYAV, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_file_is_shown_as_its_table_says(name: str, way: Way) -> None:
    CASES[name](FOLDER / name, way)


def test_every_file_is_looked_at() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*CASES}
