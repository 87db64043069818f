"""A disk or a mount that fails under a video: its row says so and blames no decoder."""

import asyncio
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import DecodeLimits
from pipeline.engine.ids import StreamId
from pipeline.errors import BadInput, FailureCode
from pipeline.stages.reading import ReadingStage
from pipeline.video import source as source_module
from pipeline.video import zygote
from pipeline.video.reader import open_media
from pipeline.video.source import Source, identity
from tests.media_factory import Clip, make

SAID = "the file cannot be read: Input/output error"
FAILING = """
import errno, os
from pipeline.video.ffmpeg import descriptor
pread = os.pread
def fail_behind(fd, num_bytes, position):
    if position + num_bytes > {num_sound}:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return pread(fd, num_bytes, position)
descriptor.pread = os.pread = fail_behind
"""


class FailingDisk:
    """The module os, for one module: all as it is, but nothing can be read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def read(self, *_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    pread = read


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make(tmp_path, Clip(num_frames=12))


@pytest.fixture
def _another_zygote() -> Iterator[None]:
    zygote.stop_zygote()
    yield
    zygote.stop_zygote()


def test_a_file_whose_first_bytes_cannot_be_read_is_its_own_failure(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "os", FailingDisk())
    stage = ReadingStage(DecodeLimits())
    with pytest.raises(BadInput) as failed:
        asyncio.run(stage.open(StreamId("test", "life", 0), Source.of(clip)))
    stage.stop()
    assert (failed.value.code, failed.value.detail) == (FailureCode.SOURCE_UNREADABLE, SAID)


def test_a_file_whose_bytes_cannot_be_counted_is_its_own_failure(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = replace(Source.of(clip), etag=None)
    monkeypatch.setattr(source_module, "os", FailingDisk())
    with pytest.raises(BadInput) as failed:
        identity(source)
    assert (failed.value.code, failed.value.detail) == (FailureCode.SOURCE_UNREADABLE, SAID)


@pytest.mark.usefixtures("_another_zygote")
@pytest.mark.parametrize("num_sound", [0, 1 << 10], ids=["from the start", "further on"])
def test_a_disk_that_fails_a_decoder_is_not_taken_for_its_crash(
    num_sound: int, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = "from pipeline.video.zygote_process import main"
    program = zygote.PROGRAM.replace(main, FAILING.format(num_sound=num_sound) + main)
    monkeypatch.setattr(zygote, "PROGRAM", program)
    with pytest.raises(BadInput) as failed, open_media(Source.of(clip)):
        pass
    assert (failed.value.code, failed.value.detail) == (FailureCode.SOURCE_UNREADABLE, SAID)
