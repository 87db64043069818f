"""Requests carried to an app in another process: nothing is changed, and nothing is left behind."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.fleet_session import FleetSession
from jobs.serve.carrier import Carrier
from jobs.serve.endpoint_options import EndpointOptions
from jobs.serve.served_videos import ServedVideos
from jobs.serve.server import endpoint
from jobs.serve.visit import AHEAD_BYTES, LEASE_S, POLL_S, Visit, Visits
from pipeline.config import DecodeLimits
from pipeline.errors import Transient
from pipeline.video.source import Source
from tests.endpoint import MODEL, SAMPLING, TIMEOUT_S, served, tiny_app
from tests.local_actors import LocalHandle
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder
from tests.virtual_time import run_virtually

GET = {"type": "http", "method": "GET", "path": "/", "headers": []}


def carried(app: FastAPI, desk: Any = None) -> ASGIApp:
    """The app with a carrier before it, as an ingress has one."""
    carrier = Carrier(LocalHandle(desk or Visits(app)))

    async def ingress(scope: Scope, receive: Receive, send: Send) -> None:
        where = app if scope["type"] == "lifespan" else carrier.carry
        await where(scope, receive, send)

    return ingress


@contextmanager
def bare(data: Path, desk: Any = None, **options: Any) -> Iterator[httpx2.Client]:
    """A carried endpoint that has no model."""

    def no_session(source: Source) -> FleetSession:
        raise AssertionError("nothing should be opened")

    videos = ServedVideos(name=MODEL, session=no_session, sampling=SAMPLING)
    app = endpoint(videos, EndpointOptions(**options), data, limits=DecodeLimits())
    with (
        served(carried(app, desk)) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        yield web


def test_a_stock_client_gets_through_a_carrier_what_it_gets_without(tmp_path: Path):
    folder = write_folder(tmp_path / "model", max_pixels=CHUNKED_PIXELS)
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
    said = []
    with tiny_app(folder, tmp_path / "data") as app:
        for way in (app, carried(app)):
            with (
                served(way) as address,
                openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
            ):
                with clip.open("rb") as file:
                    kept = client.files.create(file=file, purpose="user_data")
                assert client.files.content(kept.id).read() == clip.read_bytes()
                parts = [
                    {"type": "file", "file": {"file_id": kept.id}},
                    {"type": "text", "text": "Why?"},
                ]
                chunks = client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": parts}],
                    max_tokens=8,
                    stream=True,
                )
                said.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    assert said[0]
    assert said[0] == said[1]


def test_what_is_too_large_is_refused_through_a_carrier_before_it_is_sent(tmp_path: Path):
    with bare(tmp_path, max_upload_bytes=1_000) as web:
        answer = web.post("/v1/files", files={"file": b"0" * (3 << 20)})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_a_desk_that_is_away_is_said_in_openais_words(tmp_path: Path):
    class Away:
        async def begin(self, visit_id: str, scope: Scope) -> None:
            raise Transient("an actor died")

        async def hang_up(self, visit_id: str) -> None: ...

    with bare(tmp_path, Away()) as web:
        answer = web.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "lost")
    assert answer.headers["retry-after"] == "1"


def test_a_desk_that_is_lost_in_mid_answer_never_looks_like_its_end(tmp_path: Path):
    class Dying:
        num_asked = 0

        async def begin(self, visit_id: str, scope: Scope) -> None: ...

        async def feed(self, visit_id: str, body: bytes, more: bool) -> bool:
            return False

        async def said(self, visit_id: str) -> list[Message]:
            self.num_asked += 1
            if self.num_asked > 1:
                raise Transient("an actor died")
            start = {"type": "http.response.start", "status": 200, "headers": []}
            return [start, {"type": "http.response.body", "body": b"half", "more_body": True}]

        async def hang_up(self, visit_id: str) -> None: ...

    with bare(tmp_path, Dying()) as web, pytest.raises(httpx2.RemoteProtocolError):
        web.get("/v1/models")


class Endless:
    """An app that says a byte a second until its client hangs up."""

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self.num_said = 0
        self.has_heard = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.has_heard = True

        leaving = asyncio.create_task(leave())
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"0" * self.size, "more_body": True})
            self.num_said += 1
            await asyncio.sleep(1.0)


def test_an_answer_that_nobody_carries_any_more_is_given_up():
    async def work() -> tuple[int, int, bool]:
        app = Endless()
        visits = Visits(app)
        await visits.begin("a", GET)
        await visits.feed("a", b"", False)
        for _ in range(20):  # far longer than a lease, and carried all the time
            await visits.said("a")
            await asyncio.sleep(POLL_S / 2)
            await visits.give_up()
        num_carried = visits.num_open
        await asyncio.sleep(LEASE_S + 1)
        await visits.give_up()
        return num_carried, visits.num_open, app.has_heard

    assert run_virtually(work()) == (1, 0, True)


def test_a_slow_body_keeps_its_request_as_long_as_somebody_carries_it():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.body", "body": b"whole"})

    async def work() -> list[Message]:
        visits = Visits(app)
        await visits.begin("a", GET)
        said: list[Message] = []
        for number in range(30):
            await asyncio.sleep(2.0)
            await visits.feed("a", b"x", number < 29)
            said += await visits.said("a")
            await visits.give_up()
        return said

    assert [each["body"] for each in run_virtually(work())] == [b"whole"]


def test_an_app_is_not_far_ahead_of_who_carries_its_answer():
    async def work() -> int:
        app = Endless(size=AHEAD_BYTES // 2)
        visit = Visit(app, GET)
        await asyncio.sleep(60.0)
        num_said = app.num_said
        await visit.close()
        return num_said

    assert run_virtually(work()) == 2


def test_a_visit_that_was_given_up_says_so():
    with pytest.raises(Transient, match="given up"):
        run_virtually(Visits(Endless()).said("nobody"))
