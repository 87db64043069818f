"""A file that whoever sent it sees, and who should read it does not, is no fault of the video."""

import asyncio
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import DecodeLimits
from pipeline.engine.ids import StreamId
from pipeline.errors import BadInput, FailureCode, SourceAway
from pipeline.stages.reading import ReadingStage
from pipeline.store.archive import Archive
from pipeline.store.items import Item
from pipeline.video.source import Source, require_seen


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"a video")
    return replace(Source.of(path), size_bytes=7)


def test_the_file_that_was_seen_is_opened(source: Source) -> None:
    require_seen(source)
    require_seen(replace(source, size_bytes=None))


def test_a_file_that_is_not_there_names_the_machine_and_the_folder(source: Source) -> None:
    source.path.unlink()
    with pytest.raises(SourceAway) as stopped:
        require_seen(source)
    said = str(stopped.value)
    assert said.startswith(f"{platform.node()} does not see {source.path.parent}")
    assert "clip.mp4: there is no such file" in said


def test_another_file_in_its_place_names_both_sizes(source: Source) -> None:
    with pytest.raises(SourceAway, match="there are 7 bytes, not 8"):
        require_seen(replace(source, size_bytes=8))


def test_without_a_size_a_missing_file_is_the_videos_own_failure(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as failed:
        require_seen(Source.of(tmp_path / "no.mp4"))
    assert failed.value.code is FailureCode.NOT_FOUND


def test_a_reader_raises_it_before_any_child_is_started(source: Source) -> None:
    stage = ReadingStage(DecodeLimits())
    with pytest.raises(SourceAway):
        asyncio.run(stage.open(StreamId("test", "life", 0), replace(source, size_bytes=8)))
    stage.stop()


def test_a_file_that_is_gone_for_everybody_is_the_videos_failure_after_all(
    source: Source, tmp_path: Path
) -> None:
    archive = Archive(folder=str(tmp_path), max_bytes=100)
    item = Item(uri=str(source.path))
    with pytest.raises(BadInput) as failed, archive.open(item):  # noqa: PT012
        source.path.unlink()
        raise SourceAway("a reader does not see it")
    assert failed.value.code is FailureCode.NOT_FOUND


def test_a_file_that_is_there_for_us_stays_a_readers_trouble(
    source: Source, tmp_path: Path
) -> None:
    archive = Archive(folder=str(tmp_path), max_bytes=100)
    with pytest.raises(SourceAway), archive.open(Item(uri=str(source.path))):
        raise SourceAway("a reader does not see it")
