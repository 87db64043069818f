"""Videos of a real S3 server in chats and streams: where the operator says, and nowhere else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from jobs.lab.bench.s3_server import BUCKET, KEYS, S3Server
from pipeline.store.open import open_store
from tests.endpoint import MODEL, TIMEOUT_S, tiny_endpoint
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

MAX_BYTES = 1_000_000


@pytest.fixture
def place(s3_server: S3Server, tmp_path: Path) -> str:
    """A prefix with a clip that may be asked for, one that may not, and one that is too large."""
    store = open_store(f"s3://{BUCKET}/{uuid4().hex}", s3_server.config())
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED)).read_bytes()
    for key in ("open/a clip.mp4", "secret/clip.mp4"):
        assert store.put_new(key, clip)
    assert store.put_new("open/large.mp4", bytes(MAX_BYTES + 1))
    assert store.put_new("open/none.mp4", b"this is no video")
    return store.uri


@pytest.fixture
def web(
    s3_server: S3Server, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx2.Client]:
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": s3_server.endpoint}).items():
        monkeypatch.setenv(name, value)
    model = write_folder(tmp_path / "model", max_pixels=CHUNKED_PIXELS)
    options = {"allow_s3": (f"{place}/open",), "max_upload_bytes": MAX_BYTES}
    with (
        tiny_endpoint(model, tmp_path / "data", **options) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        yield web


def asked(web: httpx2.Client, url: str) -> Any:
    parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "Why?"}]
    body = {"model": MODEL, "messages": [{"role": "user", "content": parts}]}
    return web.post("/v1/chat/completions", json=body)


def test_a_video_of_a_listed_place_is_watched_once_and_no_other_is_had(
    web: httpx2.Client, place: str
):
    url = f"{place}/open/a clip.mp4"
    opened = web.post("/v1/streams", json={"source": {"url": url}})
    assert opened.status_code == 201, opened.text
    chats = [asked(web, url).json() for _ in range(2)]
    assert {chat["vidray"]["stream"] for chat in chats} == {opened.json()["id"]}
    assert chats[0]["choices"][0]["message"]["content"]
    refusals = {
        f"{place}/secret/clip.mp4": (422, "remote_refused"),
        f"s3://elsewhere/{uuid4().hex}/open/clip.mp4": (422, "remote_refused"),
        f"{place}/open/../secret/clip.mp4": (422, "remote_refused"),
        f"{place}/open/nothing.mp4": (422, "remote_failed"),
        f"{place}/open/large.mp4": (413, "too_large"),
        f"{place}/open/none.mp4": (422, "not_a_video"),
    }
    for refused, expected in refusals.items():
        answer = asked(web, refused)
        assert (answer.status_code, answer.json()["error"]["code"]) == expected, refused
        assert "127.0.0.1" not in answer.text
