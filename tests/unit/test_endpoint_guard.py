"""Who may ask: every route but health wants a key, and no other site's page gets through."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler
from pathlib import Path
from queue import SimpleQueue
from socket import create_connection
from urllib.parse import urlsplit

import httpx2
import pytest

from actors.fleet_session import FleetSession
from jobs.serve.endpoint_options import EndpointOptions
from jobs.serve.front import OPEN_FOLDER, OPEN_ROUTES, Guard
from jobs.serve.keys import VARIABLE, Keys
from jobs.serve.served_videos import ServedVideos
from jobs.serve.server import endpoint, guard_of
from pipeline.config import DecodeLimits
from pipeline.errors import ConfigError
from pipeline.video.source import Source
from tests.endpoint import MODEL, SAMPLING, TIMEOUT_S, bare_endpoint, served

KEY, OTHER_KEY = "correct horse", "battery staple"
CANARY = "canary-in-a-prompt"


@contextmanager
def listening(name: str, handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def line(name: str, key: str) -> str:
    return f"{name}:{hashlib.sha256(key.encode()).hexdigest()}"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[httpx2.Client]:
    keys = Keys.load(None, {VARIABLE: f"{line('ann', KEY)},{line('bob', OTHER_KEY)}"})
    with (
        bare_endpoint(tmp_path, guard=Guard(keys=keys)) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        yield web


def test_every_route_without_a_key_gives_401_but_health_and_the_page(guarded: httpx2.Client):
    document = guarded.get("/openapi.json", headers=bearer(KEY)).json()
    routes = [(method, path) for path, methods in document["paths"].items() for method in methods]
    assert len(routes) > 15
    for method, path in [*routes, ("get", "/openapi.json"), ("get", "/nowhere")]:
        url = path.replace("{", "").replace("}", "")
        for headers in ({}, bearer("wrong"), {"authorization": KEY}, {"authorization": "Bearer"}):
            response = guarded.request(method, url, headers=headers)
            if path in OPEN_ROUTES or path.startswith(OPEN_FOLDER):
                assert response.status_code == 200
            else:
                assert response.status_code == 401, (method, path)
                assert response.json()["error"]["code"] == "invalid_api_key"
                assert response.headers["x-should-retry"] == "false"
                assert response.headers["x-request-id"]
    assert guarded.get("/v1/models", headers=bearer(OTHER_KEY)).status_code == 200


def test_keys_are_lines_of_a_file_and_of_the_environment(tmp_path: Path):
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\n{line('ann', KEY)}\n")
    keys = Keys.load(file, {VARIABLE: line("bob", OTHER_KEY)})
    assert keys.owner(f"Bearer {KEY}") == "ann"
    assert keys.owner(f"bearer {OTHER_KEY}") == "bob"
    assert keys.owner("Bearer " + "a" * 10_000) is None
    file.write_text("ann:a-key-by-mistake")
    with pytest.raises(ConfigError) as refused:
        Keys.load(file, {})
    assert "mistake" not in str(refused.value)
    with pytest.raises(ConfigError):
        Keys.load(tmp_path / "none", {})


def test_beyond_loopback_keys_are_wanted_unless_anyone_may_ask(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="--keys"):
        guard_of(EndpointOptions(), is_local=False)
    assert not guard_of(EndpointOptions(anyone=True), is_local=False).is_local
    assert guard_of(EndpointOptions(), is_local=True).is_local


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "rebound.example:8000"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, 200),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8001"}, 403),
    ],
)
def test_a_loopback_endpoint_answers_this_machines_own_pages_only(
    tmp_path: Path, headers: dict[str, str], status: int
):
    with bare_endpoint(tmp_path, guard=Guard(is_local=True)) as address:
        assert (
            httpx2.get(f"{address}/v1/models", headers=headers, timeout=TIMEOUT_S).status_code
            == status
        )


def test_the_log_says_who_and_what_and_never_a_key_or_a_prompt(
    guarded: httpx2.Client,
):
    lines: SimpleQueue[logging.LogRecord] = SimpleQueue()
    with listening("vidray.access", QueueHandler(lines)):
        guarded.post(
            f"/v1/chat/completions?secret={CANARY}",
            json={"model": CANARY, "messages": [{"role": "user", "content": CANARY}]},
            headers=bearer(KEY) | {"x-request-id": "mine"},
        )
        record = lines.get(timeout=TIMEOUT_S)  # it may be written after the answer is there
    entry = json.loads(record.message)
    assert (entry["owner"], entry["status"], entry["request_id"]) == ("ann", 404, "mine")
    assert entry["path"] == "/v1/chat/completions"
    assert CANARY not in record.message
    assert KEY not in record.message


@pytest.mark.parametrize("path", ["/v1/files", "/v1/chat/completions"])
def test_a_client_that_leaves_in_mid_body_is_a_line_of_the_log_and_nothing_else(
    tmp_path: Path, path: str
):
    lines: SimpleQueue[logging.LogRecord] = SimpleQueue()
    part = b"--b\r\ncontent-disposition: form-data; name=file; filename=a.mp4\r\n\r\nfirst bytes"
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9999\r\n"
        "content-type: multipart/form-data; boundary=b\r\n\r\n"
    )
    with (
        listening("vidray.access", QueueHandler(lines)),
        listening("uvicorn.error", QueueHandler(lines)),
    ):
        with bare_endpoint(tmp_path) as address:
            place = urlsplit(address)
            with create_connection((place.hostname, place.port), TIMEOUT_S) as client:
                client.sendall(head.encode() + part)
                # Turns of the loop: the body is being read.
                httpx2.get(f"{address}/healthz", timeout=TIMEOUT_S)
            httpx2.get(f"{address}/healthz", timeout=TIMEOUT_S)
        said = [lines.get_nowait() for _ in range(lines.qsize())]
    entries = [json.loads(each.message) for each in said if each.name == "vidray.access"]
    assert [entry["status"] for entry in entries if entry["path"] == path] == [499]
    assert not [each.message for each in said if each.levelno >= logging.ERROR]
    assert not list((tmp_path / "incoming").iterdir())


def test_not_ready_is_said_with_what_is_waited_for_and_so_is_the_end(tmp_path: Path):
    missing = ["decoder", "reader"]

    async def look() -> list[str]:
        return list(missing)

    def no_session(source: Source) -> FleetSession:
        raise AssertionError("nothing should be opened")

    videos = ServedVideos(name=MODEL, session=no_session, sampling=SAMPLING, missing=look)
    app = endpoint(videos, EndpointOptions(), tmp_path, limits=DecodeLimits())
    with served(app) as address, httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web:
        away = web.get("/readyz")
        assert (away.status_code, away.json()["error"]["code"]) == (503, "lost")
        assert "waiting for decoder, reader" in away.json()["error"]["message"]
        assert away.headers["retry-after"] == "1"
        missing.clear()
        assert web.get("/readyz").status_code == 200
        app.state.desk.drain()
        ending = web.get("/readyz")
        assert (ending.status_code, ending.json()["error"]["code"]) == (503, "draining")
        assert web.get("/healthz").status_code == 200
