"""What is over is told to come back at once; one key does not take the others' room."""

import asyncio
import json
import time
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any

import httpx2
import pytest

from jobs.serve.admittance import Admittance
from jobs.serve.endpoint_options import EndpointOptions
from jobs.serve.front import ANYONE
from jobs.serve.refusals import Refusal
from jobs.serve.served_videos import ServedVideos
from jobs.serve.server import endpoint
from jobs.serve.shedding import CHAT
from jobs.serve.turnstile import Turnstile
from pipeline.config import DecodeLimits
from tests.endpoint import MODEL, SAMPLING, TIMEOUT_S, served, tiny_app, uploaded
from tests.held_words import HeldWords
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

LITTLE_BYTES = 4_096


def admittance(**settings: int) -> Admittance:
    usual = {"max_tokens": 100, "max_running": 2, "per_minute": 60}
    return Admittance(**(usual | settings))


def refused(call, *arguments, **named) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        call(*arguments, **named)
    assert refusal.value.status == 429
    assert refusal.value.retry_after_s >= 1
    return refusal.value


def test_what_does_not_fit_is_refused_and_one_always_fits():
    door = admittance()
    door.enter("ann", num_tokens=1_000, held=0)
    assert refused(door.enter, "bob", num_tokens=60, held=50).code == "busy"
    door.enter("bob", num_tokens=50, held=50)


def test_one_key_has_only_so_many_at_a_time():
    door = admittance()
    for _ in range(2):
        door.enter("ann", num_tokens=1, held=0)
    assert refused(door.enter, "ann", num_tokens=1, held=0).code == "rate_limited"
    door.enter("bob", num_tokens=1, held=0)
    door.leave("ann")
    door.enter("ann", num_tokens=1, held=0)


def test_one_key_has_only_so_many_a_minute_and_is_told_when_to_come_back():
    now = [0.0]
    door = admittance(per_minute=6)
    door.now_s = lambda: now[0]
    for _ in range(6):
        door.spend("ann")
    refusal = refused(door.spend, "ann")
    assert (refusal.code, refusal.headers["retry-after"]) == ("rate_limited", "10")
    door.spend("bob")
    now[0] += 10.0
    door.spend("ann")
    refused(door.spend, "ann")


def test_whoever_would_be_one_too_many_is_told_at_the_door():
    door = admittance()
    leave = [door.knock("ann") for _ in range(2)]
    assert refused(door.knock, "ann").code == "rate_limited"
    door.knock("bob")
    leave[0]()
    door.enter("ann", num_tokens=1, held=0)
    leave[0]()  # twice is once
    assert refused(door.knock, "ann").code == "rate_limited"
    leave[1]()
    door.knock("ann")


def test_whom_there_was_no_room_for_asks_in_vain_until_an_answer_ends():
    door = admittance()
    door.enter("ann", num_tokens=90, held=0)
    assert refused(door.enter, "bob", num_tokens=20, held=90).code == "busy"
    assert refused(door.knock, "bob").code == "busy"
    door.leave("ann")
    door.knock("bob")


def test_what_has_no_chance_is_refused_unread_and_a_body_sent_again_has_its_answer(
    tmp_path: Path, words: HeldWords
):
    words.hold_after(0)  # the answer is still being written when others come
    model = write_folder(tmp_path / "model", max_pixels=CHUNKED_PIXELS)
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
    with (
        tiny_app(model, tmp_path / "data", key_answers=1) as app,
        served(app) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        body = chat(uploaded(web, clip), max_tokens=1_000)
        with web.stream("POST", CHAT, json=body) as answer:
            lines = answer.iter_lines()
            first = next(line for line in lines if line.startswith("data: "))
            assert web.post(CHAT, content=b"{ no JSON").status_code == 429
            assert web.post(CHAT, json=body | {"seed": 1}).status_code == 429
            with web.stream("POST", CHAT, json=body) as again:
                assert again.status_code == 200
                assert next(each for each in again.iter_lines() if each.startswith("data")) == first


def test_a_chat_is_accepted_before_a_video_that_is_long_in_coming(tmp_path: Path):
    class Stuck:
        async def open(self) -> None:
            await asyncio.sleep(3_600)

    stuck: Any = Stuck()
    videos = ServedVideos(name=MODEL, session=lambda source: stuck, sampling=SAMPLING)
    app = endpoint(videos, EndpointOptions(), tmp_path / "data", limits=DecodeLimits())
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
    with served(app) as address, httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web:
        body = chat(uploaded(web, clip), max_tokens=8)
        with web.stream("POST", CHAT, json=body) as answer:
            assert (answer.status_code, next(answer.iter_lines())) == (200, ": accepted")


def test_every_route_that_starts_work_refuses_before_it_reads_a_body(tmp_path: Path):
    def no_session(source: object) -> Any:
        raise AssertionError("nothing should be opened")

    videos = ServedVideos(name=MODEL, session=no_session, sampling=SAMPLING)
    app = endpoint(videos, EndpointOptions(), tmp_path / "data", limits=DecodeLimits())
    door = app.state.desk.admittance
    door.running[ANYONE] = door.bringing[ANYONE] = door.max_running
    paths = ("chat/completions", "streams", "streams/x/ask", "streams/x/ground", "files")
    with served(app) as address, httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web:
        for path in paths:
            assert web.post(f"/v1/{path}", content=b"{ no JSON").status_code == 429
        with closing(HTTPConnection(address.removeprefix("http://"), timeout=TIMEOUT_S)) as raw:
            raw.putrequest("POST", CHAT)
            raw.putheader("content-length", "50000000")
            raw.endheaders()  # and not one byte of a video inside
            assert raw.getresponse().status == 429
        door.running.clear()
        door.bringing.clear()
        for path in paths:
            assert web.post(f"/v1/{path}", content=b"{ no JSON").status_code in (400, 422)
    assert not door.knocking
    assert not door.bringing


def test_those_who_come_at_once_are_let_in_one_a_turn_and_in_order():
    async def work() -> None:
        turnstile, inside = Turnstile(), list[int]()

        async def come(number: int) -> None:
            await turnstile.pass_through()
            inside.append(number)

        coming = [asyncio.ensure_future(come(number)) for number in range(8)]
        while len(inside) < len(coming):
            num_before = len(inside)
            await asyncio.sleep(0)
            assert len(inside) <= num_before + 1
        assert inside == list(range(8))

    asyncio.run(work())


def test_a_listener_that_never_reads_keeps_nobody_out(tmp_path: Path):
    model = write_folder(tmp_path / "model", max_pixels=CHUNKED_PIXELS)
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
    little = [(SOL_SOCKET, SO_RCVBUF, LITTLE_BYTES)]
    with (
        tiny_app(model, tmp_path / "data", key_answers=2) as app,
        served(app, send_bytes=LITTLE_BYTES) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
        httpx2.Client(
            base_url=address,
            timeout=TIMEOUT_S,
            transport=httpx2.HTTPTransport(socket_options=little),
        ) as deaf,
        ExitStack() as listeners,
    ):
        file_id = uploaded(web, clip)
        unread = []
        for seed in range(2):
            body = chat(file_id, max_tokens=1_000) | {"seed": seed}
            unread.append(listeners.enter_context(deaf.stream("POST", CHAT, json=body)))
            assert unread[-1].status_code == 200
        body = chat(file_id, max_tokens=8) | {"stream": False}
        while (answer := web.post(CHAT, json=body)).status_code == 429:
            assert answer.headers["retry-after"] == "2"
            time.sleep(0.01)  # the server is in this process, too
        assert answer.json()["choices"][0]["message"]["content"]
        (stream,) = app.state.desk.streams.all
        *stuck, last = stream.answers.values()
        ended = [each for each in stuck if each.end is not None]
        assert ended
        # Words wait for their clients in no buffer: the answer is over, and still being told.
        assert [each.num_listeners for each in ended] == [1] * len(ended)
        assert last.num_listeners == 0
        for response, answering in zip(unread, stuck, strict=True):
            chunks = [
                json.loads(each[6:]) for each in response.iter_lines() if each[:7] == "data: {"
            ]
            words = [each["choices"][0]["delta"].get("content") or "" for each in chunks]
            assert "".join(words) == answering.text


def chat(file_id: str, *, max_tokens: int) -> dict[str, Any]:
    parts = [{"type": "file", "file": {"file_id": file_id}}, {"type": "text", "text": "Why?"}]
    messages = [{"role": "user", "content": parts}]
    return {"model": MODEL, "messages": messages, "max_tokens": max_tokens, "stream": True}


def test_answers_on_one_video_count_each_and_what_is_over_is_refused(
    tmp_path: Path, words: HeldWords
):
    words.hold_after(0)  # none ends before the last one comes
    model = write_folder(tmp_path / "model", max_pixels=CHUNKED_PIXELS)
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
    question = {"question": "Why?", "stream": True, "max_tokens": 1_000}
    with tiny_app(model, tmp_path / "data") as app, ExitStack() as open_answers:
        desk = app.state.desk
        with served(app) as address, httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web:
            source = {"file_id": uploaded(web, clip)}
            stream = web.post("/v1/streams", json={"source": source}).json()
            room = desk.videos.question_tokens + 1_000
            desk.admittance.max_tokens = stream["plan"]["num_tokens"] + room
            statuses = [
                open_answers.enter_context(
                    web.stream("POST", f"/v1/streams/{stream['id']}/ask", json=question)
                ).status_code
                for _ in range(room // 1_000 + 1)
            ]
            open_answers.close()
            assert statuses == [200] * (room // 1_000) + [429]
