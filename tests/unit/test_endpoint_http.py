"""What HTTP, server-sent events and OpenAI's API ask of an endpoint, at the edges of its routes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.endpoint import MODEL, TIMEOUT_S, bare_endpoint, tiny_endpoint
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

CHAT = "/v1/chat/completions"
UNUSABLE = {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    model = write_folder(tmp_path_factory.mktemp("model"), max_pixels=CHUNKED_PIXELS)
    with (
        tiny_endpoint(model, tmp_path_factory.mktemp("data")) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        yield web


@pytest.fixture(scope="module")
def file_id(web: httpx2.Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    clip = make(tmp_path_factory.mktemp("clip"), Clip(num_frames=24, **CHUNKED))
    sent = web.post("/v1/files", files={"file": clip.read_bytes()}, data={"purpose": "user_data"})
    return str(sent.json()["id"])


@pytest.fixture(scope="module")
def stream(web: httpx2.Client, file_id: str) -> str:
    """Its path."""
    opened = web.post("/v1/streams", json={"source": {"file_id": file_id}})
    return f"/v1/streams/{opened.json()['id']}"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[httpx2.Client]:
    with (
        bare_endpoint(tmp_path) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        yield web


def asked(file_id: str, **more: Any) -> dict[str, Any]:
    """A chat."""
    parts = [{"type": "file", "file": {"file_id": file_id}}, {"type": "text", "text": "Why?"}]
    return {"model": MODEL, "messages": [{"role": "user", "content": parts}], **more}


def refused(response: httpx2.Response) -> tuple[int, str, str | None, str]:
    """Status, code, param, message."""
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"], error["message"]


def test_a_schema_that_no_answer_can_be_held_to_is_refused_with_the_reason(
    web: httpx2.Client, stream: str, file_id: str
):
    why = (
        422,
        "bad_prompt",
        "response_format",
        'a schema that can\'t be used: Unimplemented keys: ["not"]',
    )
    body = {"question": "Why?", "response_format": UNUSABLE}
    assert refused(web.post(f"{stream}/ask", json=body)) == why
    assert refused(web.post(f"{stream}/ask", json={**body, "stream": True})) == why
    assert refused(web.post(CHAT, json=asked(file_id, response_format=UNUSABLE))) == why
    assert web.get(stream).json()["answers"] == []
    status, code, param, message = refused(web.post(CHAT, json=asked(file_id, choices=[""])))
    assert (status, code, param) == (422, "bad_prompt", "choices")
    assert message == "choices must be 1 to 1000 non-empty texts"
