"""A real endpoint for tests: uvicorn on loopback, in a thread of this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import SO_SNDBUF, SOL_SOCKET, create_server
from typing import Any

import httpx2
from fastapi import FastAPI
from starlette.types import ASGIApp

from actors.fleet_session import FleetSession
from jobs.serve.endpoint_options import EndpointOptions
from jobs.serve.front import Guard
from jobs.serve.local_host import LocalHost
from jobs.serve.served_videos import ServedVideos
from jobs.serve.server import endpoint, server_of
from jobs.sight.spans import VideoSpans
from pipeline.config import DecodeLimits, EngineLimits, Sampling, SessionLimits
from pipeline.local import LocalFlow, LocalModel
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source

DEADLINE_S = 60.0
TIMEOUT_S = 60.0
MODEL = "tiny"
SAMPLING = Sampling(max_new_tokens=8)


@contextmanager
def served(app: ASGIApp, *, send_bytes: int | None = None) -> Iterator[str]:
    """Its address while it runs. send_bytes: that the system takes for a client who reads none."""
    server = server_of(app)
    with create_server(("127.0.0.1", 0)) as listener:
        if send_bytes is not None:
            listener.setsockopt(SOL_SOCKET, SO_SNDBUF, send_bytes)
        host, port = listener.getsockname()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.should_exit = True
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


@contextmanager
def bare_endpoint(data: Path, *, guard: Guard | None = None, **options: Any) -> Iterator[str]:
    """One that has no model: for what is decided before one is needed."""

    def no_session(source: Source) -> FleetSession:
        raise AssertionError("nothing should be opened")

    videos = ServedVideos(name=MODEL, session=no_session, sampling=SAMPLING)
    app = endpoint(videos, EndpointOptions(**options), data, limits=DecodeLimits(), guard=guard)
    with served(app) as address:
        yield address


@contextmanager
def tiny_endpoint(
    model_folder: Path,
    data: Path,
    *,
    guard: Guard | None = None,
    spans: VideoSpans | None = None,
    **options: Any,
) -> Iterator[str]:
    """The endpoint in this process over a tiny checkpoint, whose words mean nothing."""
    with (
        tiny_app(model_folder, data, guard=guard, spans=spans, **options) as app,
        served(app) as address,
    ):
        yield address


@contextmanager
def tiny_app(
    model_folder: Path,
    data: Path,
    *,
    guard: Guard | None = None,
    spans: VideoSpans | None = None,
    **options: Any,
) -> Iterator[FastAPI]:
    """The same, to be served in several ways."""
    limits = EngineLimits(max_tokens=16_384, question_tokens=2_048)
    flow = LocalFlow(LocalModel.load(model_folder, limits=limits), options=PlanOptions(fps=12.0))
    host = LocalHost(flow, SessionLimits(max_tokens=8_192))
    videos = ServedVideos(name=MODEL, session=host.session, sampling=SAMPLING)
    try:
        yield endpoint(
            videos,
            EndpointOptions(**options),
            data,
            limits=DecodeLimits(),
            guard=guard,
            spans=spans,
        )
    finally:
        flow.close()


def uploaded(web: httpx2.Client, clip: Path) -> str:
    """Its id."""
    with clip.open("rb") as file:
        sent = web.post("/v1/files", files={"file": file}, data={"purpose": "user_data"})
    assert sent.status_code == 200, sent.text
    return str(sent.json()["id"])
