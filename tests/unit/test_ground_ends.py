"""Whoever follows a stream hears how each search in it ended."""

import shutil
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobs.serve.stream_log import LoggedEvent
from tests.endpoint import TIMEOUT_S, tiny_endpoint, uploaded
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model"), max_pixels=CHUNKED_PIXELS)


def over(model: Path, data: Path) -> Iterator[httpx2.Client]:
    with (
        tiny_endpoint(model, data) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        yield web


def opened(web: httpx2.Client, folder: Path) -> str:
    """Its path."""
    clip = make(folder, Clip(num_frames=24, **CHUNKED))
    body = {"source": {"file_id": uploaded(web, clip)}}
    return f"/v1/streams/{web.post('/v1/streams', json=body).json()['id']}"


def told(web: httpx2.Client, path: str, *, until: str) -> list[str]:
    """Lines of the stream's events, up to this one's name, and then its data."""
    with web.stream("GET", f"{path}/events") as response:
        lines = response.iter_lines()
        before = list(takewhile(lambda line: line != f"event: {until}", lines))
        return [*before, next(lines)]


@pytest.mark.parametrize(
    ("query", "code"), [("\0", "bad_prompt"), ("w " * 40_000, "prompt_too_long")]
)
def test_a_search_that_is_refused_has_an_end(model: Path, tmp_path: Path, query: str, code: str):
    for web in over(model, tmp_path / "data"):
        path = opened(web, tmp_path)
        refused = web.post(f"{path}/ground", json={"query": query})
        assert refused.json()["error"]["code"] == code
        *_, last = told(web, path, until="ground_failed")
        assert f'"code":"{code}"' in last.replace(" ", "")
        assert f'vidray_failures_total{{code="{code}"}} 1.0' in web.get("/metrics").text
        good = web.post(f"{path}/ground", json={"query": "a dog"}).json()
        *_, last = told(web, path, until="grounded")
        assert good["id"] in last


def test_a_search_that_a_desk_died_at_has_an_end_at_the_next(model: Path, tmp_path: Path):
    for web in over(model, tmp_path / "data"):
        path = opened(web, tmp_path)
        found = web.post(f"{path}/ground", json={"query": "a dog"}).json()
        told(web, path, until="grounded")  # so that it is on the disk
        shutil.copytree(tmp_path / "data", tmp_path / "killed")
    (journal,) = (tmp_path / "killed").glob("streams/*.jsonl")
    number = journal.read_bytes().count(b"\n")
    with journal.open("ab") as file:
        text = '{"ground": "ground-1", "query": "a cat"}'
        file.write(LoggedEvent(number, "grounding", text).line)
    for web in over(model, tmp_path / "killed"):
        lines: list[Any] = told(web, path, until="ground_failed")
        assert '"ground-1"' in lines[-1]
        assert '"lost"' in lines[-1]
        assert any(found["id"] in line for line in lines)
