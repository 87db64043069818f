"""An answer that nobody listens to is paused: nothing is done for it until somebody asks for it."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from jobs.serve import chat_routes
from tests.endpoint import MODEL, TIMEOUT_S, tiny_endpoint
from tests.held_words import HeldWords
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

FEW_STEPS = 20  # a few words of many


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endpoint")
    write_folder(folder / "model", max_pixels=CHUNKED_PIXELS)
    return folder


@contextmanager
def endpoint(folder: Path) -> Iterator[httpx2.Client]:
    with (
        tiny_endpoint(folder / "model", folder / "data") as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        yield web


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[httpx2.Client]:
    with endpoint(folder) as web:
        yield web


@pytest.fixture
def stream(web: httpx2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(chat_routes, "LINGER_S", 0.05)
    number = len(web.get("/v1/streams").json()["data"])
    clip = make(tmp_path, Clip(num_frames=24 + number, **CHUNKED))
    with clip.open("rb") as file:
        sent = web.post("/v1/files", files={"file": file}, data={"purpose": "user_data"})
    body = {"source": {"file_id": sent.json()["id"]}}
    opened: dict[str, Any] = web.post("/v1/streams", json=body).json()
    return opened


def said_in(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The chunks of a chat that bring words."""
    for line in lines:
        if line.startswith("data: {"):
            chunk = json.loads(line.removeprefix("data: "))
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                yield chunk


def text_of(chunks: Iterator[dict[str, Any]]) -> str:
    return "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)


def left_alone(
    web: httpx2.Client, url: str, body: dict[str, Any], words: HeldWords
) -> dict[str, Any]:
    """A chat of which one chunk was heard, and for which nothing is done any more: that chunk."""
    words.hold_after(FEW_STEPS)
    with web.stream("POST", "/v1/chat/completions", json=body) as response:
        first = next(said_in(response.iter_lines()))
    deadline_s = time.monotonic() + TIMEOUT_S
    while "vidray_running 0.0" not in web.get("/metrics").text:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    with web.stream("GET", f"{url}/events") as response:
        assert "event: paused" in response.iter_lines()  # what is told is on the disk
    words.go_on()
    return first


def num_timed(web: httpx2.Client) -> list[float]:
    """Answers whose first word, and whose end, were timed."""
    lines = web.get("/metrics").text.splitlines()
    names = ("vidray_first_word_seconds_count", "vidray_answer_seconds_count")
    return [
        sum(float(line.split()[-1]) for line in lines if line.startswith(name)) for name in names
    ]


def long_chat(stream: dict[str, Any]) -> dict[str, Any]:
    """Whose answer takes longer than anybody goes on for nobody."""
    schema = {"type": "string", "minLength": 4_000}
    video = {"type": "file", "file": {"file_id": stream["file_id"]}}
    parts = [video, {"type": "text", "text": "Why?"}]
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": 1_000,
        "stream": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    }


def test_for_whoever_hangs_up_nothing_is_done_until_they_come_back(
    web: httpx2.Client, stream: dict[str, Any], words: HeldWords
):
    url, body = f"/v1/streams/{stream['id']}", long_chat(stream)
    first = left_alone(web, url, body, words)
    (answer,) = web.get(url).json()["answers"]
    assert (answer["status"], answer["error"]) == ("paused", None)
    assert web.post(f"{url}/ask", json={"question": "Why?"}).json()["status"] == "done"
    with web.stream("POST", "/v1/chat/completions", json=body) as response:
        again = list(said_in(response.iter_lines()))
    whole = text_of(iter(again))
    assert again[0]["id"] == first["id"]
    assert whole.startswith(answer["text"])
    assert len(whole) > len(answer["text"])
    other = long_chat(stream) | {"seed": 1, "temperature": 0}  # another answer, never left alone
    with web.stream("POST", "/v1/chat/completions", json=other) as response:
        unbroken = list(said_in(response.iter_lines()))
    assert unbroken[0]["id"] != first["id"]
    assert text_of(iter(unbroken)) == whole


def test_who_asks_for_the_rest_of_an_answer_that_was_left_alone_has_it(
    web: httpx2.Client, stream: dict[str, Any], words: HeldWords
):
    url, body = f"/v1/streams/{stream['id']}", long_chat(stream)
    counted = num_timed(web)
    first = left_alone(web, url, body, words)
    (answer,) = web.get(url).json()["answers"]
    before = web.get(f"{url}").json()["last_event_id"]
    rest = web.get(f"/v1/chat/completions/{first['id']}", params={"after": before})
    assert text_of(said_in(iter(rest.text.splitlines())))
    assert rest.text.endswith("data: [DONE]\n\n")
    (whole,) = web.get(url).json()["answers"]
    assert whole["status"] == "done"
    assert num_timed(web) == [number + 1 for number in counted]  # once, not at its pause as well
    assert whole["text"] == answer["text"] + text_of(said_in(iter(rest.text.splitlines())))


def test_an_answer_that_was_left_alone_is_as_it_was_after_the_death_of_its_desk(
    web: httpx2.Client,
    stream: dict[str, Any],
    words: HeldWords,
    folder: Path,
    tmp_path: Path,
):
    url, body = f"/v1/streams/{stream['id']}", long_chat(stream)
    first = left_alone(web, url, body, words)
    left = web.get(url).json()
    shutil.copytree(folder, tmp_path / "killed")
    with web.stream("POST", "/v1/chat/completions", json=body) as response:
        whole = text_of(said_in(response.iter_lines()))
    with endpoint(tmp_path / "killed") as other:
        (answer,) = other.get(url).json()["answers"]
        assert (answer["status"], answer["text"]) == ("paused", left["answers"][0]["text"])
        assert "vidray_running 0.0" in other.get("/metrics").text
        after = {"after": left["last_event_id"]}
        rest = other.get(f"/v1/chat/completions/{first['id']}", params=after)
        assert answer["text"] + text_of(said_in(iter(rest.text.splitlines()))) == whole


def test_an_answer_that_was_left_alone_can_be_stopped_for_good(
    web: httpx2.Client, stream: dict[str, Any], words: HeldWords
):
    url = f"/v1/streams/{stream['id']}"
    left_alone(web, url, long_chat(stream), words)
    (answer,) = web.get(url).json()["answers"]
    stopped = web.delete(f"{url}/answers/{answer['id']}").json()
    assert (stopped["status"], stopped["error"]["code"]) == ("failed", "stopped")
    assert stopped["text"] == answer["text"]


def test_a_client_that_loses_patience_and_asks_again_has_the_answer_that_it_asked_for_first(
    web: httpx2.Client,
    stream: dict[str, Any],
    words: HeldWords,
    monkeypatch: pytest.MonkeyPatch,
):
    """Its time-outs and the pauses between its tries are its own; the answer comes at the third."""
    monkeypatch.setattr(chat_routes, "WHOLE_LINGER_S", TIMEOUT_S)
    url = f"/v1/streams/{stream['id']}"
    words.hold_after(FEW_STEPS)
    num_asked = 0

    def go_on_at_the_third(request: httpx2.Request) -> None:
        nonlocal num_asked
        num_asked += 1
        if num_asked == 3:
            words.go_on()
            request.extensions["timeout"]["read"] = TIMEOUT_S

    hooks = {"request": [go_on_at_the_third]}
    with (
        httpx2.Client(event_hooks=hooks) as impatient,
        openai.OpenAI(
            base_url=f"{web.base_url}/v1",
            api_key="none",
            http_client=impatient,
            timeout=0.5,
            max_retries=6,
        ) as client,
    ):
        chat = long_chat(stream) | {"stream": False, "max_tokens": 100}
        said = client.chat.completions.create(**chat)
    assert num_asked == 3
    now = web.get(url).json()
    assert [answer["text"] for answer in now["answers"]] == [said.choices[0].message.content]
    assert now["counters"]["watched"] == 1
    with web.stream("GET", f"{url}/events") as response:
        lines = takewhile(lambda line: line != "event: answered", response.iter_lines())
        assert "event: paused" not in lines
