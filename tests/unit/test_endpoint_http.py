"""What HTTP, server-sent events and OpenAI's API ask of an endpoint, at the edges of its routes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.endpoint import MODEL, TIMEOUT_S, bare_endpoint, tiny_endpoint, uploaded
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
    return uploaded(web, clip)


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
    assert message == "choices must be 1 to 1000 non-empty texts, got 1, number 1 of them empty"


def test_what_a_route_does_not_do_is_refused_with_what_it_does(bare: httpx2.Client):
    allowed = {
        ("PUT", "/v1/models"): "GET",
        ("PUT", "/v1/files"): "GET, POST",
        ("PATCH", "/v1/files/file-1"): "DELETE, GET",
        ("POST", "/healthz"): "GET, HEAD",
        ("GET", CHAT): "POST",
        ("DELETE", "/page/page.js"): "GET, HEAD",
    }
    for (method, path), allow in allowed.items():
        response = bare.request(method, path)
        assert refused(response)[:2] == (405, "method_not_allowed"), (method, path)
        assert response.headers["allow"] == allow, (method, path)


def test_health_and_the_page_can_be_looked_at_by_head(bare: httpx2.Client):
    for path in ("/healthz", "/readyz", "/"):
        looked, got = bare.head(path), bare.get(path)
        assert (looked.status_code, looked.content) == (200, b""), path
        for name in ("content-type", "content-length"):
            assert looked.headers[name] == got.headers[name], path


def test_an_answer_that_its_choices_end_has_the_same_end_on_a_stream_as_in_a_chat(
    web: httpx2.Client, stream: str, file_id: str
):
    said = web.post(f"{stream}/ask", json={"question": "Why?", "choices": ["a"]}).json()
    chat = web.post(CHAT, json=asked(file_id, choices=["a"])).json()
    assert (said["text"], said["finish_reason"]) == ("a", "stop")
    assert chat["choices"][0]["finish_reason"] == "stop"
    assert web.get(stream).json()["answers"][-1]["finish_reason"] == "stop"


def test_who_asks_for_what_comes_after_an_event_that_never_was_is_told_the_newest(
    web: httpx2.Client, stream: str
):
    answer = web.post(f"{stream}/ask", json={"question": "Why?"}).json()["id"]
    newest = web.get(stream).json()["last_event_id"]
    beyond = newest + 1
    why = f"there is no event {beyond} yet; the newest is {newest}"
    events = f"{stream}/events"
    rest = f"{CHAT}/{answer.replace('answer-', 'chatcmpl-')}"
    for path, params in ((events, {}), (events, {"answer": answer}), (rest, {})):
        response = web.get(path, params=params | {"after": beyond})
        assert refused(response) == (422, "invalid", "after", why), path
    by_header = web.get(events, headers={"last-event-id": str(beyond)})
    assert refused(by_header) == (422, "invalid", "last-event-id", why)
    with web.stream("GET", events, params={"after": newest - 1}) as response:
        assert next(response.iter_lines()) == f"id: {newest}"


def test_an_upload_says_what_it_is_for(bare: httpx2.Client):
    for fields in ({}, {"purpose": ""}):
        response = bare.post("/v1/files", files={"file": b"0"}, data=fields)
        told = "a file comes with its purpose, such as user_data"
        assert refused(response) == (422, "invalid", "purpose", told)


def test_two_ceilings_for_one_answer_that_differ_are_refused_by_both_names(
    web: httpx2.Client, stream: str, file_id: str
):
    differing = {"max_tokens": 4, "max_completion_tokens": 5}
    told = "max_tokens is 4 and max_completion_tokens 5; send one of them"
    for response in (
        web.post(CHAT, json=asked(file_id, **differing)),
        web.post(f"{stream}/ask", json={"question": "Why?", **differing}),
    ):
        assert refused(response) == (422, "invalid", "max_completion_tokens", told)
    alike = web.post(CHAT, json=asked(file_id, max_tokens=4, max_completion_tokens=4)).json()
    assert alike["usage"]["completion_tokens"] <= 4


def test_what_needs_a_video_that_was_deleted_is_told_that_it_is_gone(
    web: httpx2.Client, tmp_path: Path
):
    file_id = uploaded(web, make(tmp_path, Clip(num_frames=36, **CHUNKED)))
    opened = web.post("/v1/streams", json={"source": {"file_id": file_id}})
    path = f"/v1/streams/{opened.json()['id']}"
    place = {"query": "the red circle", "times_s": [0.5]}
    assert web.get(f"{path}/frames/0").status_code == 200
    assert web.post(f"{path}/ground", json=place).status_code == 200
    web.delete(f"/v1/files/{file_id}")
    gone = [
        web.get(f"{path}/frames/1"),
        web.post(f"{path}/ask", json={"question": "Why?"}),
        web.post(f"{path}/ground", json=place | {"times_s": [1.0]}),
    ]
    told = (404, "not_found", None, "there is no such file")
    assert [refused(each) for each in gone] == [told] * len(gone)


def test_a_key_of_the_clients_is_of_one_body_only(web: httpx2.Client, file_id: str):
    body = asked(file_id)
    another = asked(file_id, seed=5)

    def said(body: dict[str, Any], key: str) -> httpx2.Response:
        return web.post(CHAT, json=body, headers={"idempotency-key": key})

    first, again, apart = said(body, "one"), said(body, "one"), said(body, "one more")
    assert first.json()["id"] == again.json()["id"] != apart.json()["id"]
    what = "the Idempotency-Key 'one' came with another body just before; give each its own"
    assert refused(said(another, "one")) == (422, "invalid", "idempotency-key", what)
    assert said(another, "two").status_code == 200
