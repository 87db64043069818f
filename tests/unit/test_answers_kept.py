"""What is kept for a request that is sent again is kept for a while, however busy its video is."""

import time
from pathlib import Path

import httpx2
import pytest

from jobs.serve import desk, sent_bodies
from jobs.serve.front import ANYONE
from tests.endpoint import MODEL, TIMEOUT_S, served, tiny_app
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder


def test_an_answer_is_forgotten_though_its_video_is_asked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(desk, "SWEEP_S", 0.01)
    monkeypatch.setattr(sent_bodies, "KEEP_ANSWER_S", 0.0)
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
    folder = write_folder(tmp_path / "model", max_pixels=CHUNKED_PIXELS)
    with (
        tiny_app(folder, tmp_path / "data") as app,
        served(app) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        with clip.open("rb") as file:
            sent = web.post("/v1/files", files={"file": file}, data={"purpose": "user_data"})
        video = {"type": "file", "file": {"file_id": sent.json()["id"]}}
        parts = [video, {"type": "text", "text": "Why?"}]
        body = {"model": MODEL, "messages": [{"role": "user", "content": parts}]}

        def asked() -> str:
            answer = web.post("/v1/chat/completions", json=body)
            for stream in app.state.desk.streams_of(ANYONE):
                stream.used_at = time.time() + 1_000  # as if asked just now, whenever one looks
            return str(answer.json()["id"])

        first = asked()
        deadline_s = time.monotonic() + TIMEOUT_S
        while app.state.desk._sent.bodies:  # no request: there may be too many in a minute
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert asked() != first
