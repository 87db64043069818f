"""A desk that dies in mid-answer: the next one over its folder goes on with the same words."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobs.serve.open_streams import FORGET_S
from jobs.serve.shedding import CHAT
from jobs.serve.stream_journal import StreamJournal
from tests.endpoint import MODEL, TIMEOUT_S, tiny_endpoint, uploaded
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

TOLD = ("words", "answered")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model"), max_pixels=CHUNKED_PIXELS)


def web_over(model: Path, data: Path) -> Iterator[httpx2.Client]:
    with (
        tiny_endpoint(model, data) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        yield web


def words(lines: Iterator[str]) -> Iterator[tuple[int, str, str]]:
    """Number of the event, id of the answer, text."""
    number = 0
    for line in lines:
        if line.startswith("id: "):
            number = int(line[4:])
        if line.startswith("data: {"):
            chunk: dict[str, Any] = json.loads(line[6:])
            for choice in chunk["choices"]:
                if text := choice["delta"].get("content"):
                    yield number, chunk["id"], text


def test_an_answer_cut_by_the_death_of_its_desk_is_gone_on_with_to_the_same_words(
    model: Path, tmp_path: Path
):
    alive, dead = tmp_path / "alive", tmp_path / "dead"
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
    for web in web_over(model, alive):
        file_id = uploaded(web, clip)
        parts = [{"type": "file", "file": {"file_id": file_id}}, {"type": "text", "text": "Why?"}]
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": 300,
            "temperature": 1,
            "stream": True,
            "vidray": {"progress": True},
        }
        heard = []
        with web.stream("POST", CHAT, json=body) as answer:
            for each in words(answer.iter_lines()):
                heard.append(each)
                if len(heard) == 3:
                    shutil.copytree(alive, dead)  # what is on the disk when it is killed
    whole = "".join(text for _, _, text in heard)
    last, completion, _ = heard[2]
    for web in web_over(model, dead):
        rest = web.get(f"{CHAT}/{completion}", params={"after": last})
        said = "".join(text for _, _, text in words(iter(rest.text.splitlines())))
        assert said
        assert "".join(text for _, _, text in heard[:3]) + said == whole
        from_start = web.get(f"{CHAT}/{completion}")
        assert "".join(t for _, _, t in words(iter(from_start.text.splitlines()))) == whole
        with web.stream("POST", CHAT, json=body) as answer:
            again = list(words(answer.iter_lines()))
        assert {each[1] for each in again} == {completion}
        assert "".join(text for _, _, text in again) == whole
        assert web.get(f"{CHAT}/chatcmpl-{'0' * 24}").status_code == 404


def test_a_stream_has_its_id_its_events_and_its_answers_at_the_next_desk(
    model: Path, tmp_path: Path
):
    alive, dead = tmp_path / "alive", tmp_path / "dead"
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
    manner = {"max_tokens": 300, "temperature": 1}
    for web in web_over(model, alive):
        file_id = uploaded(web, clip)
        stream = web.post("/v1/streams", json={"source": {"file_id": file_id}}).json()
        path = f"/v1/streams/{stream['id']}"
        first = web.post(f"{path}/ask", json={"question": "Why?", **manner}).json()
        places = web.post(f"{path}/ground", json={"query": "a dog", "times_s": [0.5]}).json()
        follow = {"question": "And?", "after": first["id"], "stream": True, **manner}
        told: list[tuple[int, str, dict[str, Any]]] = []
        with web.stream("POST", f"{path}/ask", json=follow) as answer:
            for each in events(answer.iter_lines()):
                told.append(each)
                if sum(name == "words" for _, name, _ in told) == 3 and not dead.exists():
                    shutil.copytree(alive, dead)  # what is on the disk when it is killed
        counters = web.get(path).json()["counters"]
        last = web.post(f"{path}/ask", json={"question": "How?", "after": told[-1][2]["id"]}).json()
    cut = next(number for number, name, _ in told if name == "words")
    for web in web_over(model, dead):
        again = web.get(path).json()
        assert (again["id"], again["plan"]) == (stream["id"], stream["plan"])
        assert again["counters"] == counters
        assert again["answers"][0] == first
        params = {"answer": told[0][2]["answer"]}
        headers = {"last-event-id": str(cut)}
        with web.stream("GET", f"{path}/events", params=params, headers=headers) as answer:
            rest = [each for each in events(answer.iter_lines()) if each[1] in TOLD]
        texts = [data["text"] for number, name, data in told if name == "words" and number <= cut]
        texts += [data["text"] for _, name, data in rest if name == "words"]
        assert "".join(texts) == told[-1][2]["text"] == rest[-1][2]["text"]
        after = {"question": "How?", "after": told[-1][2]["id"]}
        assert web.post(f"{path}/ask", json=after).json()["text"] == last["text"]
        found = web.post(f"{path}/ground", json={"query": "a dog", "times_s": [0.5]}).json()
        assert found["boxes"] == places["boxes"]
        opened = web.post("/v1/streams", json={"source": {"file_id": file_id}})
        assert (opened.status_code, opened.json()["id"]) == (200, stream["id"])
        assert web.delete(path).json()["deleted"]
    for web in web_over(model, dead):
        assert web.get(path).status_code == 404


def test_a_stream_that_gave_way_is_opened_again_by_its_id(model: Path, tmp_path: Path):
    with (
        tiny_endpoint(model, tmp_path / "data", max_streams=1) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
        file_id = uploaded(web, clip)
        source = {"file_id": file_id}
        first, second = (
            web.post("/v1/streams", json={"source": source, "plan": {"fps": fps}}).json()["id"]
            for fps in (4.0, 6.0)
        )
        said = set()
        for stream_id in (first, second, first):
            path = f"/v1/streams/{stream_id}"
            answer = web.post(f"{path}/ask", json={"question": "Why?", "temperature": 0}).json()
            assert (answer["status"], answer["usage"]["cached_tokens"]) == ("done", 0)
            said.add((stream_id, answer["text"]))
        assert len(said) == 2
        assert len(web.get(f"/v1/streams/{first}").json()["answers"]) == 2


def events(lines: Iterator[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    number, name = 0, ""
    for line in lines:
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield number, name, json.loads(line[6:])


def test_what_is_cut_or_old_or_no_journal_is_not_gone_on_with(tmp_path: Path):
    (tmp_path / "stream-a.jsonl").write_text('{"stream_id": "a')
    (tmp_path / "stream-b.jsonl").write_text("nothing\n")
    old = tmp_path / "stream-c.jsonl"
    old.write_text("{}\n")
    os.utime(old, (time.time() - FORGET_S - 1,) * 2)
    journal = StreamJournal(tmp_path, keep_s=FORGET_S)
    asyncio.run(journal.open())
    assert [journal.of_id(f"stream-{name}") for name in "abc"] == [None] * 3
    assert list(tmp_path.iterdir()) == []
