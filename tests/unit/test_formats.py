"""`vidray formats` names what is really read and refused."""

import pytest

from jobs.formats import CONTAINERS, REFUSED, show
from pipeline.errors import FailureCode
from pipeline.video import sniff
from pipeline.video.ffmpeg.codecs import VIDEO_CODECS


def test_every_container_that_is_read_is_listed() -> None:
    by_structure = {"mov", "avi", "mpegts", "h264", "hevc"}
    by_magic = {demuxer for _, demuxer in sniff._MAGIC} | {name for _, name, _ in sniff._IMAGES}
    assert set(CONTAINERS) == by_structure | by_magic


def test_every_codec_and_every_known_refusal_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    show()
    said = " ".join(capsys.readouterr().out.split())
    assert set(VIDEO_CODECS) <= set(said.replace(",", " ").split())
    for _, name in sniff._KNOWN_BUT_REFUSED:
        assert name in REFUSED[FailureCode.UNSUPPORTED_CONTAINER]
    assert all(code in said for code in REFUSED)
