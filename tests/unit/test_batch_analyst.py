"""A planned video becomes its row: its own questions, range and faults are its own."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.batch.analyst import Analyst
from jobs.batch.job import Job
from jobs.batch.method import make_method
from pipeline.config import Sampling
from pipeline.errors import FailureCode, ObjectRefused, StoreDenied, StoreFull, Transient
from pipeline.events import Listener, ignore
from pipeline.model_identity import ModelIdentity
from pipeline.store.archive import Archive
from pipeline.store.items import Item
from pipeline.store.local import LocalStore
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.video.source import Source
from tests.report_rows import good_row

METHOD = make_method(Job(source="clips", out="out", ask=("All?",), start=1.0), Sampling())


class Fleet:
    """Says what it was asked; may do something first."""

    def __init__(self, first: Any = lambda source: None) -> None:
        self.asked: list[tuple[Source, Tasks]] = []
        self._first = first

    async def analyse(
        self, source: Source, tasks: Tasks, *, video_id: str, listener: Listener = ignore
    ) -> Record:
        self._first(source)
        self.asked.append((source, tasks))
        return replace(good_row(), video_id=video_id, uri=source.uri, etag=source.etag)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"video")
    return path


def planned(clip: Path, **fields: Any) -> Item:
    info = LocalStore(str(clip.parent)).head(clip.name)
    return Item(uri=str(clip), etag=info.etag, size_bytes=info.size_bytes, **fields)


def make_row(fleet: Fleet, item: Item, folder: Path) -> Record:
    archive = Archive(folder=str(folder), max_bytes=100)
    analyst = Analyst(fleet.analyse, archive, METHOD, ModelIdentity("m", "d"))
    return asyncio.run(analyst.make_row(item))


def test_a_video_is_asked_its_own_questions_over_its_own_range(clip: Path, tmp_path: Path) -> None:
    fleet = Fleet()
    item = planned(
        clip, questions=("Mine?",), ground=("it",), start_s=2.0, end_s=3.0, extra={"label": "cat"}
    )
    row = make_row(fleet, item, tmp_path)
    assert row.extra == {"label": "cat"}
    ((source, tasks),) = fleet.asked
    assert (row.video_id, row.uri, row.etag) == (item.video_id, item.uri, item.etag)
    assert row.size_bytes == 5
    assert source.path == clip
    assert [ask.question for ask in tasks.asks] == ["All?", "Mine?"]
    assert METHOD.options.of(source).end_s == 3.0
    assert METHOD.options.of(source).start_s == 2.0
    assert METHOD.options.of(replace(source, start_s=None, end_s=None)).start_s == 1.0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"uri": "/no/such/clip.mp4"}, FailureCode.NOT_FOUND),
        ({"etag": "another"}, FailureCode.SOURCE_CHANGED),
        ({"questions": ("  ",)}, FailureCode.BAD_PROMPT),
    ],
    ids=["missing", "changed", "a question without words"],
)
def test_a_videos_own_fault_is_its_row_and_nothing_was_asked(
    change: dict[str, Any], code: FailureCode, clip: Path, tmp_path: Path
) -> None:
    fleet, item = Fleet(), replace(planned(clip, extra={"label": "cat"}), **change)
    row = make_row(fleet, item, tmp_path)
    assert row.extra == {"label": "cat"}
    assert (row.status, row.code, row.video_id) == ("failed", code, item.video_id)
    assert (row.provenance.model, row.provenance.model_digest) == ("m", "d")
    assert str(tmp_path) not in (row.detail or "")
    assert fleet.asked == []


def test_a_file_that_is_replaced_while_it_is_analysed_gives_no_result(
    clip: Path, tmp_path: Path
) -> None:
    fleet = Fleet(lambda source: source.path.write_bytes(b"another video"))
    row = make_row(fleet, planned(clip), tmp_path)
    assert len(fleet.asked) == 1
    assert row.code is FailureCode.SOURCE_CHANGED


@pytest.mark.parametrize(
    "error", [Transient("no answer"), StoreDenied("no such key"), ObjectRefused("400")]
)
def test_a_store_that_does_not_give_it_out_has_a_code_of_its_own(
    error: Exception, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is the video's failure or an outage is for somebody else to find out."""

    def refuse(self: LocalStore, key: str) -> None:
        raise error

    item, fleet = planned(clip), Fleet()
    monkeypatch.setattr(LocalStore, "head", refuse)
    row = make_row(fleet, item, tmp_path)
    assert (row.code, row.detail) == (FailureCode.SOURCE_UNREADABLE, str(error))
    assert fleet.asked == []


@pytest.mark.parametrize("hangs_at", [1, 2], ids=["before it is read", "after it was read"])
def test_a_file_system_that_hangs_is_a_store_that_does_not_give_it_out(
    hangs_at: int, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, answers = planned(clip), threading.Event()
    head, calls, look_s = LocalStore.head, [], 0.2

    def hurry(source: Source) -> None:
        analyst._look_s = look_s

    def hang(self: LocalStore, key: str) -> object:
        calls.append(key)
        if len(calls) == hangs_at:
            answers.wait(60)
        return head(self, key)

    monkeypatch.setattr(LocalStore, "head", hang)
    fleet, archive = Fleet(hurry), Archive(folder=str(tmp_path), max_bytes=100)
    analyst = Analyst(fleet.analyse, archive, METHOD, ModelIdentity("m", "d"))
    if hangs_at == 1:
        hurry(Source.of(clip))  # the look that does not hang has all its time
    row = asyncio.run(analyst.make_row(item))
    answers.set()
    assert row.code is FailureCode.SOURCE_UNREADABLE
    assert row.detail == f"the file system does not answer for {look_s:g} s"
    assert len(fleet.asked) == hangs_at - 1


def test_what_is_not_the_videos_fault_stops_the_job(clip: Path, tmp_path: Path) -> None:
    def fill(source: Source) -> None:
        raise StoreFull("no space left for a copy of the object")

    with pytest.raises(StoreFull):
        make_row(Fleet(fill), planned(clip), tmp_path)
