"""A disk or a mount that fails under a video: its row says so and blames no decoder."""

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import DecodeLimits
from pipeline.engine.ids import StreamId
from pipeline.errors import BadInput, FailureCode
from pipeline.stages import reading
from pipeline.stages.reading import ReadingStage
from pipeline.video import source as source_module
from pipeline.video import zygote
from pipeline.video.reader import Media, open_media
from pipeline.video.source import Source, identity, open_file
from tests.media_factory import Clip, make

SAID = "the file cannot be read: Input/output error"
FAILING = """
import errno, os
from pipeline.video.ffmpeg import descriptor
pread = os.pread
def fail_behind(fd, num_bytes, position):
    if position + num_bytes > {num_sound}:
        raise OSError({number}, os.strerror({number}))
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


class LostMount(FailingDisk):
    """Of which nothing is known any more either, as where a handle is stale."""

    fstat = FailingDisk.read


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
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EINVAL])
def test_a_disk_that_fails_a_decoder_is_not_taken_for_its_crash(
    number: int, num_sound: int, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = "from pipeline.video.zygote_process import main"
    program = zygote.PROGRAM.replace(
        main, FAILING.format(num_sound=num_sound, number=number) + main
    )
    monkeypatch.setattr(zygote, "PROGRAM", program)
    with pytest.raises(BadInput) as failed, open_media(Source.of(clip)):
        pass
    said = f"the file cannot be read: {os.strerror(number)}"
    assert (failed.value.code, failed.value.detail) == (FailureCode.SOURCE_UNREADABLE, said)


def test_a_disk_that_cannot_be_asked_about_an_open_file_is_its_own_failure(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_file(Source.of(clip), max_bytes=1 << 30) as file:
        monkeypatch.setattr(source_module, "os", LostMount())
        with pytest.raises(BadInput) as failed:
            file.require_unchanged()
    assert (failed.value.code, failed.value.detail) == (FailureCode.SOURCE_UNREADABLE, SAID)


def test_a_file_that_is_deleted_while_it_is_opened_is_the_one_that_was_opened(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_bytes = clip.stat().st_size

    @contextmanager
    def open_and_delete(source: Source, limits: DecodeLimits) -> Iterator[Media]:
        with open_media(source, limits) as media:
            source.path.unlink()
            yield media

    monkeypatch.setattr(reading, "open_media", open_and_delete)
    stage = ReadingStage(DecodeLimits())
    source = replace(Source.of(clip), etag="e")
    opened = asyncio.run(stage.open(StreamId("test", "life", 0), source))
    stage.stop()
    assert opened.size_bytes == size_bytes
