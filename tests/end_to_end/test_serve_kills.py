"""The endpoint over a fleet whose processes are killed in mid-answer: no client notices."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from actors.cluster import start_local_ray
from actors.fleet import Fleet
from actors.launch import start_fleet
from actors.profile import DecoderPool, EncoderPool, Profile, ReaderPool
from jobs.serve.endpoint_options import EndpointOptions
from jobs.serve.served_videos import ServedVideos
from jobs.serve.server import endpoint
from pipeline.config import DecodeLimits, Sampling
from pipeline.video.options import PlanOptions
from tests.endpoint import MODEL, served, uploaded
from tests.first_words import first_words_only
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder
from tests.victims import VICTIMS, until_gone

pytestmark = pytest.mark.timeout(300)
DEADLINE_S = 240.0
PROFILE = Profile(
    readers=ReaderPool(num_cpus=0.1),
    encoders=EncoderPool(num_cpus=0.1),
    decoders=DecoderPool(num_cpus=0.1, kv_tokens=8_192, question_tokens=3_000),
    stall_s=60,
)
NUM_TOKENS = 200
QUESTION = {"question": "Why?", "stream": True, "max_tokens": NUM_TOKENS, "temperature": 0}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    import ray

    folder = write_folder(tmp_path_factory.mktemp("model") / "tiny", max_pixels=CHUNKED_PIXELS)
    start_local_ray(object_store_bytes=PROFILE.object_store_bytes, num_cpus=PROFILE.num_cpus)
    try:
        with start_fleet(folder, options=PlanOptions(fps=6.0), profile=PROFILE) as fleet:
            yield fleet
    finally:
        ray.shutdown()


@pytest.fixture
def web(fleet: Fleet, tmp_path: Path) -> Iterator[httpx2.Client]:
    videos = ServedVideos(name=MODEL, session=fleet.session, sampling=Sampling(max_new_tokens=8))
    options = EndpointOptions(max_answer_tokens=NUM_TOKENS)
    app = endpoint(videos, options, tmp_path / "data", limits=DecodeLimits())
    with (
        served(app) as address,
        httpx2.Client(base_url=address, timeout=DEADLINE_S) as web,
    ):
        yield web


@pytest.mark.parametrize("victim", ["reader", "encoder", "first rank", "stream host"])
def test_an_answer_goes_on_with_the_same_words_whoever_is_killed(
    fleet: Fleet, web: httpx2.Client, tmp_path: Path, victim: str
):
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
    source = {"file_id": uploaded(web, clip)}
    stream = web.post("/v1/streams", json={"source": source}).json()
    url = f"/v1/streams/{stream['id']}"
    before = asked(web, url)
    process_id, killed = VICTIMS[victim](fleet), []
    with first_words_only(fleet.pools.decoders[0]) as let_go:

        def kill() -> None:
            if not killed:
                os.kill(process_id, signal.SIGKILL)
                until_gone(process_id)
                killed.append(process_id)
                let_go()

        during = asked(web, url, kill)
    assert killed
    assert during == before
    counters = web.get(url).json()["counters"]
    if victim in ("first rank", "stream host"):
        assert counters["watched"] > 1  # what it held was lost, and watched again


def asked(web: httpx2.Client, url: str, hear: Callable[[], None] = lambda: None) -> str:
    """The words as they came. hear: is called at each run of them."""
    text = ""
    with web.stream("POST", f"{url}/ask", json=QUESTION) as response:
        name = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            if line.startswith("data: ") and name == "words":
                text += json.loads(line.removeprefix("data: "))["text"]
                hear()
            if line.startswith("data: ") and name in ("answered", "failed"):
                data = json.loads(line.removeprefix("data: "))
                assert name == "answered", data
                assert data["text"] == text
    return text
