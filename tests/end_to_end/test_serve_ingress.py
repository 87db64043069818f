"""The endpoint under Ray Serve: whichever process is killed, the next request goes on.

Its actors are a fleet with a name, which a batch shares: `vidray batch run` in its own process.
"""

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import yaml

from actors.cluster import start_local_ray
from jobs.lab.bench.endpoint_process import num_held
from jobs.lab.free_ports import free_port
from jobs.serve.desk_actor import DeskSettings
from jobs.serve.endpoint_options import EndpointOptions
from jobs.serve.front import OPEN_ROUTES
from jobs.serve.ingress import deployment
from jobs.serving import ServingOptions
from pipeline.store.open import open_store
from tests.batch_runs import assert_complete, begin, end, until_heard
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

pytestmark = pytest.mark.timeout(300)
DEADLINE_S = 120.0
NUM_CLIPS = 6
LONG_TOKENS = 1_900
KEY = "correct horse"
INGRESS, PROXY, DESK = "ServeReplica:vidray:Ingress", "ray::ProxyActor", "ray::DeskActor"
FLEET = "main"
EVENTS, OUT = "events.jsonl", "out"
PROFILE = {
    "name": "small",
    "readers": {"num_cpus": 0.1},
    "encoders": {"num_cpus": 0.1},
    "decoders": {"num_cpus": 0.1, "kv_tokens": 8_192},
    "sessions": {"idle_tokens": 0},  # what is held, answers hold
}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> ServingOptions:
    folder = tmp_path_factory.mktemp("serve")
    profile = folder / "profile.yaml"
    profile.write_text(yaml.safe_dump(PROFILE))
    model = write_folder(folder / "tiny", max_pixels=CHUNKED_PIXELS)
    return ServingOptions(model=model, profile=profile, fleet=FLEET)


@pytest.fixture(scope="module")
def web(
    serving: ServingOptions, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx2.Client]:
    """Two ingress replicas before one desk, which wants a key."""
    import ray
    from ray import serve

    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"ann:{hashlib.sha256(KEY.encode()).hexdigest()}")
    settings = DeskSettings(
        serving=serving,
        endpoint=EndpointOptions(
            keys=keys, data=tmp_path_factory.mktemp("data"), max_answer_tokens=LONG_TOKENS
        ),
    )
    port = free_port()
    start_local_ray(object_store_bytes=200 << 20, num_cpus=4)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        two = deployment().options(num_replicas=2, ray_actor_options={"num_cpus": 0.1})
        serve.run(two.bind(settings), name="vidray", route_prefix="/")
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=DEADLINE_S,
            headers={"authorization": f"Bearer {KEY}"},
        ) as web:
            yield web
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Each time another clip."""
    folder = tmp_path_factory.mktemp("clips")
    return (make(folder, Clip(num_frames=24 + n, **CHUNKED), f"clip{n}") for n in range(12))


def processes(name: str) -> list[int]:
    """Of this test's own Ray."""
    return [
        each.pid
        for each in psutil.Process().children(recursive=True)
        if any(name in word for word in command_of(each))
    ]


def command_of(process: psutil.Process) -> list[str]:
    """Nothing of one that ends meanwhile."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def sent(web: httpx2.Client, clip: Path) -> str:
    with clip.open("rb") as file:
        answer = web.post("/v1/files", files={"file": file}, data={"purpose": "user_data"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def chat(file_id: str, *, max_tokens: int) -> dict[str, Any]:
    parts = [{"type": "file", "file": {"file_id": file_id}}, {"type": "text", "text": "Why?"}]
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
    }


def long_chat(file_id: str) -> dict[str, Any]:
    """That is being answered for seconds: who wants to kill somebody meanwhile has to be quick."""
    schema = {"type": "string", "minLength": 4 * LONG_TOKENS}
    form = {"type": "json_schema", "json_schema": {"name": "long", "schema": schema}}
    return chat(file_id, max_tokens=LONG_TOKENS) | {"response_format": form}


class Heard:
    """What came of an answer so far."""

    def __init__(self) -> None:
        self.text = ""
        self.id = ""
        self.last_event = 0

    def listen(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield each run of words."""
        for line in lines:
            if line.startswith("id: "):
                self.last_event = int(line.removeprefix("id: "))
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk, chunk
                self.id = chunk["id"]
                for choice in chunk["choices"]:
                    if words := choice["delta"].get("content"):
                        self.text += words
                        yield words


def heard(web: httpx2.Client, body: dict[str, Any]) -> Heard:
    whole = Heard()
    with web.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        for _ in whole.listen(answer.iter_lines()):
            pass
    return whole


def rest_of(web: httpx2.Client, part: Heard) -> Heard:
    rest, answer = Heard(), web.get(f"/v1/chat/completions/{part.id}?after={part.last_event}")
    list(rest.listen(iter(answer.text.splitlines())))
    return rest


def until(holds: Callable[[], bool], *, within_s: float = DEADLINE_S) -> None:
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def answers(web: httpx2.Client, path: str) -> bool:
    try:
        return web.get(path, timeout=5.0).status_code == 200
    except httpx2.TransportError:
        return False


def metric(web: httpx2.Client, name: str) -> float:
    """0 of one that is not there yet."""
    lines = web.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def running(web: httpx2.Client) -> float:
    return metric(web, "vidray_running")


def num_paused(web: httpx2.Client) -> float:
    return metric(web, 'vidray_answers_total{status="paused"}')


def counters(web: httpx2.Client, file_id: str) -> dict[str, int]:
    (stream,) = (
        each for each in web.get("/v1/streams").json()["data"] if each["file_id"] == file_id
    )
    return stream["counters"]


def cut_off(web: httpx2.Client, body: dict[str, Any], victim: str = INGRESS) -> tuple[Heard, float]:
    """Hear a word, then kill every ingress, or another; and how long the client took to notice."""
    part = Heard()
    victims = processes(victim)  # now: the answer may be short
    assert len(victims) == (2 if victim == INGRESS else 1)
    killed_s = time.monotonic()
    try:
        with web.stream("POST", "/v1/chat/completions", json=body) as answer:
            words = part.listen(answer.iter_lines())
            next(words)
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            killed_s = time.monotonic()
            for _ in words:
                pass
    except httpx2.TimeoutException:
        raise  # nobody told it
    except httpx2.TransportError:
        return part, time.monotonic() - killed_s
    raise AssertionError("nobody noticed")


def begin_batch(
    serving: ServingOptions, folder: Path, *, max_new_tokens: int
) -> "subprocess.Popen[str]":
    """On the endpoint's own actors; EVENTS and OUT are in the folder."""
    import ray

    archive = folder / "clips"
    archive.mkdir()
    for number in range(NUM_CLIPS):
        make(archive, Clip(num_frames=24 + number, **CHUNKED), f"clip{number}")
    flags = ("--model", serving.model, "--profile", serving.profile, "--fleet", FLEET,
             "--address", ray.get_runtime_context().gcs_address,
             "--max-new-tokens", max_new_tokens, "--videos-per-part", 1)  # fmt: skip
    return begin(folder / EVENTS, archive, folder / OUT, *flags)


def test_every_route_wants_a_key_and_none_fails_at_a_request_that_says_nothing(
    web: httpx2.Client,
):
    paths = web.get("/openapi.json").json()["paths"]
    routes = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    assert len(routes) > 20
    with httpx2.Client(base_url=web.base_url, timeout=DEADLINE_S) as nobody:
        for method, path in [*routes, ("HEAD", "/healthz"), ("GET", "/nowhere")]:
            url = path.replace("{", "").replace("}", "")
            status = 200 if path in OPEN_ROUTES else 401
            assert nobody.request(method, url).status_code == status, (method, path)
            assert web.request(method, url).status_code < 500, (method, path)


def test_a_killed_ingress_costs_its_connections_and_nothing_else(
    web: httpx2.Client, clips: Iterator[Path]
):
    for _ in range(3):  # the machine may stall for longer than a client takes to notice
        until(lambda: len(processes(INGRESS)) == 2)
        until(lambda: answers(web, "/readyz"))
        file_id = sent(web, next(clips))
        body, num_before = long_chat(file_id), num_paused(web)
        part, noticed_s = cut_off(web, body)
        until(lambda: answers(web, "/healthz"))
        if noticed_s < 1.0:
            break
    assert noticed_s < 1.0
    again = heard(web, body)
    assert again.text.startswith(part.text)
    assert again.text != part.text
    assert again.id == part.id  # the same answer, not another one
    once = counters(web, file_id)
    # Once; unless ingresses were away for so long that it was paused, and here what rests holds
    # nothing.
    assert once["watched"] <= 1 + num_paused(web) - num_before
    assert once["decoded"] == once["prefilled"]
    assert part.text + rest_of(web, part).text == again.text


def test_what_nobody_comes_back_for_is_stopped_and_holds_nothing_within_ten_seconds(
    web: httpx2.Client, clips: Iterator[Path]
):
    until(lambda: len(processes(INGRESS)) == 2)
    until(lambda: answers(web, "/readyz"))
    cut_off(web, long_chat(sent(web, next(clips))))
    until(lambda: answers(web, "/healthz"))
    until(lambda: not running(web) and not num_held(), within_s=10.0)


def test_a_killed_proxy_costs_connections_and_a_batch_on_the_same_actors_nothing(
    web: httpx2.Client, clips: Iterator[Path], serving: ServingOptions, tmp_path: Path
):
    until(lambda: answers(web, "/readyz"))
    body = long_chat(sent(web, next(clips)))
    batch = begin_batch(serving, tmp_path, max_new_tokens=400)
    try:
        until_heard(tmp_path / EVENTS, "part", batch)
        part, _ = cut_off(web, body, PROXY)  # how soon, `vidray bench outages` says
        until(lambda: answers(web, "/healthz"))
        until(lambda: not running(web))
        again = heard(web, body)
        _, said = batch.communicate(timeout=DEADLINE_S)
    finally:
        end(batch)
    assert again.text.startswith(part.text)
    assert again.id == part.id  # the same answer, not another one
    assert part.text + rest_of(web, part).text == again.text
    assert batch.returncode == 0, said
    assert_complete(open_store(str(tmp_path / OUT)))


def test_a_killed_batch_holds_nothing_of_the_fleet_that_it_shared(
    web: httpx2.Client, clips: Iterator[Path], serving: ServingOptions, tmp_path: Path
):
    until(lambda: answers(web, "/readyz"))
    until(lambda: not num_held())
    batch = begin_batch(serving, tmp_path, max_new_tokens=1_000)
    try:
        until(lambda: num_held() > 0)
    finally:
        end(batch)
    until(lambda: not num_held())
    assert heard(web, chat(sent(web, next(clips)), max_tokens=8)).text


def test_a_killed_desk_loses_neither_chats_nor_streams(web: httpx2.Client, clips: Iterator[Path]):
    until(lambda: answers(web, "/readyz"))
    source = {"file_id": sent(web, next(clips))}
    path = f"/v1/streams/{web.post('/v1/streams', json={'source': source}).json()['id']}"
    asked = {"question": "Why?", "max_tokens": 100, "temperature": 0}
    first = web.post(f"{path}/ask", json=asked).json()
    last_event = web.get(path).json()["last_event_id"]
    places = web.post(f"{path}/ground", json={"query": "a dog"}).json()["boxes"]

    body = long_chat(sent(web, next(clips)))
    before = heard(web, body)
    other = body | {"seed": 7}  # greedy: the same words, another answer
    part, _ = cut_off(web, other, DESK)

    until(lambda: answers(web, "/readyz"))
    rest = web.get(f"/v1/chat/completions/{part.id}?after={part.last_event}")
    after = Heard()
    list(after.listen(iter(rest.text.splitlines())))
    assert part.text
    assert part.text + after.text == before.text
    again = heard(web, other)
    assert (again.id, again.text) == (part.id, before.text)

    assert web.get(path).json()["answers"] == [first]
    headers = {"last-event-id": str(last_event)}
    with web.stream("GET", f"{path}/events", headers=headers) as events:
        named = (line for line in events.iter_lines() if line.startswith("event: "))
        assert [next(named), next(named)] == ["event: grounding", "event: grounded"]
    follow = {"question": "And?", "after": first["id"], "max_tokens": 8}
    assert web.post(f"{path}/ask", json=follow).json()["status"] == "done"
    assert web.post(f"{path}/ask", json=asked).json()["text"] == first["text"]
    assert web.post(f"{path}/ground", json={"query": "a dog"}).json()["boxes"] == places
