"""A disk that stands still holds up the stream whose words it takes, and nobody else."""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from jobs.serve.left_stream import LeftStream
from jobs.serve.stream_file import StreamFile
from tests.endpoint import served, tiny_app, uploaded
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

TIMEOUT_S = 20.0  # of a request
ASKED = {"question": "Why?", "temperature": 0}


class StuckDisk:
    """Takes what is added to this stream's file when it is let go on, and not before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream_id = "none"
        self.is_reached = threading.Event()
        self.goes_on = threading.Event()
        add = StreamFile.add

        def wait_and_add(file: StreamFile, lines: Iterable[bytes]) -> None:
            if self.stream_id in str(file._path):
                self.is_reached.set()
                assert self.goes_on.wait(3 * TIMEOUT_S)
            add(file, lines)

        monkeypatch.setattr(StreamFile, "add", wait_and_add)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[StuckDisk]:
    disk = StuckDisk(monkeypatch)
    yield disk
    disk.goes_on.set()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model"), max_pixels=CHUNKED_PIXELS)


@pytest.fixture
def app(model: Path, tmp_path: Path) -> Iterator[FastAPI]:
    with tiny_app(model, tmp_path / "data") as app:
        yield app


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make(tmp_path, Clip(num_frames=24, **CHUNKED))


def opened(web: httpx2.Client, file_id: str, *, fps: float) -> str:
    """A stream's path."""
    body = {"source": {"file_id": file_id}, "plan": {"fps": fps}}
    return f"/v1/streams/{web.post('/v1/streams', json=body).json()['id']}"


def ask(web: httpx2.Client, path: str) -> dict[str, Any]:
    answer: dict[str, Any] = web.post(f"{path}/ask", json=ASKED).json()
    return answer


def test_words_of_other_streams_come_while_the_disk_stands_still_for_one(
    app: FastAPI, clip: Path, disk: StuckDisk
):
    with (
        served(app) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
        ThreadPoolExecutor(1) as beside,
    ):
        file_id = uploaded(web, clip)
        stuck, free = (opened(web, file_id, fps=fps) for fps in (4.0, 6.0))
        disk.stream_id = stuck.rpartition("/")[2]
        waiting = beside.submit(ask, web, stuck)
        try:
            assert disk.is_reached.wait(TIMEOUT_S)
            assert ask(web, free)["status"] == "done"
            assert web.get("/healthz").status_code == 200
            assert web.get(stuck).json()["last_event_id"] == 1  # nobody has heard of its question
            assert not waiting.done()
        finally:
            disk.goes_on.set()
        answer = waiting.result(TIMEOUT_S)
        assert (answer["status"], bool(answer["text"])) == ("done", True)
        assert web.get(stuck).json()["answers"] == [answer]


def test_others_are_answered_while_an_upload_waits_for_the_disk(
    app: FastAPI, clip: Path, monkeypatch: pytest.MonkeyPatch
):
    is_reached, goes_on = threading.Event(), threading.Event()
    replace = Path.replace

    def wait_and_replace(path: Path, target: Path) -> Path:
        if target.parent.name == "files":
            is_reached.set()
            assert goes_on.wait(3 * TIMEOUT_S)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", wait_and_replace)
    with (
        served(app) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
        ThreadPoolExecutor(1) as beside,
    ):
        sending = beside.submit(uploaded, web, clip)
        try:
            assert is_reached.wait(TIMEOUT_S)
            assert web.get("/healthz").status_code == 200
        finally:
            goes_on.set()
        file_id = sending.result(TIMEOUT_S)
        assert web.get(f"/v1/files/{file_id}").json()["id"] == file_id


def test_what_is_yet_to_be_written_at_the_end_is_written_and_holds_up_no_loop(
    app: FastAPI, clip: Path, disk: StuckDisk
):
    async def work() -> tuple[str, str]:
        life = app.router.lifespan_context(app)
        await life.__aenter__()
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as web:
            form = {"files": {"file": clip.read_bytes()}, "data": {"purpose": "user_data"}}
            sent = (await web.post("/v1/files", **form)).json()
            source = {"source": {"file_id": sent["id"]}}
            stream_id = (await web.post("/v1/streams", json=source)).json()["id"]
            disk.stream_id = stream_id
            asking = asyncio.ensure_future(web.post(f"/v1/streams/{stream_id}/ask", json=ASKED))
            await asyncio.to_thread(disk.is_reached.wait, TIMEOUT_S)
            (answering,) = app.state.desk.streams.all[0].answers.values()
            await answering._over()
            ending = asyncio.ensure_future(life.__aexit__(None, None, None))
            await asyncio.wait({ending}, timeout=0.0)
            assert not ending.done()
            disk.goes_on.set()
            async with asyncio.timeout(TIMEOUT_S):
                await ending
                return stream_id, (await asking).json()["text"]

    stream_id, text = asyncio.run(work())
    left = LeftStream.read(app.state.desk.uploads.folder / "streams" / f"{stream_id}.jsonl")
    assert left is not None
    (answer,) = left.answers
    assert text
    assert (answer.text, answer.end is not None) == (text, True)


def test_an_app_that_ends_and_begins_again_has_what_it_had(app: FastAPI, clip: Path):
    paths, said = set(), []
    for _ in range(3):
        with (
            served(app) as address,
            httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
        ):
            paths.add(path := opened(web, uploaded(web, clip), fps=4.0))
            said.append(ask(web, path))
            assert web.get(path).json()["answers"] == said
    assert len(paths) == 1
    assert len({each["text"] for each in said}) == 1
