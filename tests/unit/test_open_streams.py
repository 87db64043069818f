"""Which open stream somebody gets, and whose gives way."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobs.serve.front import Guard
from jobs.serve.keys import VARIABLE, Keys
from tests.endpoint import TIMEOUT_S, tiny_endpoint, uploaded
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

NUM_FRAMES = 24
PLANS: list[dict[str, Any]] = [{}, {"fps": 12.0}, {"start_s": 0.0}, {"max_frames": NUM_FRAMES}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model"), max_pixels=CHUNKED_PIXELS)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("clips"), Clip(num_frames=NUM_FRAMES, **CHUNKED))


@pytest.fixture
def clients(model: Path, tmp_path: Path) -> Iterator[dict[str, httpx2.Client]]:
    """Two, with keys of their own; three streams may be open."""
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("ann", "bob")}
    keys = Keys.load(None, {VARIABLE: ",".join(f"{name}:{it}" for name, it in digests.items())})
    with tiny_endpoint(model, tmp_path, guard=Guard(keys=keys), max_streams=3) as address:
        clients = {
            name: httpx2.Client(
                base_url=address, timeout=TIMEOUT_S, headers={"authorization": f"Bearer {name}"}
            )
            for name in digests
        }
        yield clients
        for web in clients.values():
            web.close()


def opened(web: httpx2.Client, file_id: str, plan: dict[str, Any]) -> httpx2.Response:
    return web.post("/v1/streams", json={"source": {"file_id": file_id}, "plan": plan})


def test_samplings_that_come_to_one_plan_share_a_stream_that_is_watched_once(
    clients: dict[str, httpx2.Client], clip: Path
):
    web = clients["ann"]
    file_id = uploaded(web, clip)
    answers = [opened(web, file_id, plan) for plan in PLANS]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200]
    assert len({answer.json()["id"] for answer in answers}) == 1
    path = f"/v1/streams/{answers[0].json()['id']}"
    for answer in answers:
        assert answer.json()["plan"] == answers[0].json()["plan"]
        asked = web.post(f"/v1/streams/{answer.json()['id']}/ask", json={"question": "Why?"})
        assert asked.json()["status"] == "done"
    assert web.get(path).json()["counters"]["watched"] == 1
    assert opened(web, file_id, {"fps": 6.0}).status_code == 201
    assert web.delete(path).status_code == 200
    assert [opened(web, file_id, plan).status_code for plan in PLANS] == [201, 200, 200, 200]


def test_one_of_whoever_has_most_streams_gives_way(clients: dict[str, httpx2.Client], clip: Path):
    def num_open(name: str) -> int:
        return len(clients[name].get("/v1/streams").json()["data"])

    files = {name: uploaded(web, clip) for name, web in clients.items()}
    assert opened(clients["bob"], files["bob"], {}).status_code == 201
    for fps in (2.0, 3.0, 4.0, 6.0):
        assert opened(clients["ann"], files["ann"], {"fps": fps}).status_code == 201
    assert (num_open("ann"), num_open("bob")) == (2, 1)
    assert opened(clients["bob"], files["bob"], {"fps": 6.0}).status_code == 201
    assert (num_open("ann"), num_open("bob")) == (1, 2)
