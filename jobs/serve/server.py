"""`vidray serve`: the endpoint on this machine, or in front of a cluster."""

import asyncio
import gc
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from rich.console import Console
from starlette.types import ASGIApp

from jobs.exits import LAST_S, Exit, end_within
from jobs.ingest.hints import Hints
from jobs.models import model_folder
from jobs.serve.app import make_app
from jobs.serve.connection import Connection
from jobs.serve.desk import Desk
from jobs.serve.endpoint_options import EndpointOptions
from jobs.serve.front import LOOPBACK_NAMES, Guard
from jobs.serve.keys import Keys
from jobs.serve.served_videos import ServedVideos
from jobs.serve.uploads import Uploads
from jobs.serving import ServingOptions
from jobs.sight.spans import VideoSpans, video_spans
from jobs.workplace import Recipe, Workplace
from pipeline.config import DecodeLimits
from pipeline.errors import ConfigError
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.model.digest import display_name
from pipeline.video.options import PlanOptions

GRACE_S = 30  # that running answers get at SIGTERM
ACCEPTS = 32  # connections that are taken in one turn of the event loop


def run(
    serving: ServingOptions, options: EndpointOptions, console: Console, progress: Console
) -> int:
    """Serve until a signal; returns the exit code. ConfigError before anything is started."""
    guard = guard_of(options, is_local=options.host in LOOPBACK_NAMES)
    with (
        _listener(options) as listener,
        opened_endpoint(serving, options, progress, guard=guard) as app,
    ):
        host, port = listener.getsockname()[:2]
        name = app.state.desk.videos.name
        console.print(f"{name} answers at http://{host}:{port}/ (Ctrl-C ends it)")
        log_requests(progress)
        server_of(app).run(sockets=[listener])
    return Exit.OK


@contextmanager
def opened_endpoint(
    serving: ServingOptions, options: EndpointOptions, progress: Console, *, guard: Guard
) -> Iterator[FastAPI]:
    """The app over a model that is loaded. ConfigError before anything is started."""
    folder = model_folder(serving.model)
    recipe = Recipe(
        checkpoint=folder,
        options=PlanOptions(),
        reader=serving.reader,
        int8=serving.int8,
        max_new_tokens=options.max_answer_tokens,
        limits=serving.limits,
    )
    place = Workplace.of(serving)
    with (
        place.opened_for_sessions(recipe, progress) as work,
        _data(options) as data,
        video_spans(options.otel) as spans,
    ):
        videos = ServedVideos(
            name=display_name(folder, int8=serving.int8),
            session=work.session,
            missing=work.missing,
            sampling=load_generation(folder).sampling,
            kv_tokens=place.kv_tokens,
            question_tokens=recipe.question_tokens,
        )
        app = endpoint(
            videos, options, data, limits=place.limits(serving.limits), guard=guard, spans=spans
        )
        gc.collect()
        gc.freeze()  # what stays anyway took 0.3 s to look through, now and then, of every client
        yield app


def endpoint(
    videos: ServedVideos,
    options: EndpointOptions,
    data: Path,
    *,
    limits: DecodeLimits,
    guard: Guard | None = None,
    spans: VideoSpans | None = None,
) -> FastAPI:
    """The app, with its uploads in the folder data."""
    uploads = Uploads(
        data, max_bytes=options.max_upload_bytes, keep_s=options.keep_uploads_s, limits=limits
    )
    hints = Hints.load(options.schedules) if options.schedules else None
    desk = Desk(videos, uploads, options, spans=spans)
    return make_app(desk, guard=guard, limits=limits, hints=hints)


class DrainingServer(uvicorn.Server):
    """Tells the desk at the first signal, so that those who only listen do not hold it up. Running
    answers have GRACE_S then; at its end, and at the second signal, all clients are hung up on.

    Takes many connections a turn: libuv takes one of each listener, so that the last of hundreds
    that come at once would wait for hundreds of turns until anything of it is read.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard: int | None = None
        self._grace_s: float = GRACE_S

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        listeners = [each.dup() for each in sockets or () for _ in range(ACCEPTS)]
        await super().startup(listeners or None)  # who made the sockets closes them

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        hanging_up = asyncio.get_running_loop().call_later(self._grace_s, self._hang_up)
        await super().shutdown(sockets)
        hanging_up.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._heard is not None:  # which makes the exit code
            end_within(LAST_S, 128 + self._heard)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._hang_up)
            return
        self._heard = sig
        end_within(self._grace_s + LAST_S, 128 + sig)
        app = self.config.app
        if isinstance(app, FastAPI):
            app.state.desk.drain()
        super().handle_exit(sig, frame)

    def _hang_up(self) -> None:
        """Who is being answered has gone, for all that the routes know: they end at that."""
        self._grace_s = 0.0
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def server_of(app: ASGIApp) -> uvicorn.Server:
    return DrainingServer(
        uvicorn.Config(
            app, http=Connection, log_level="warning", access_log=False, server_header=False
        )
    )


def log_requests(progress: Console) -> None:
    """A line of JSON for each, beside what else is said."""
    log = logging.getLogger("vidray.access")
    log.addHandler(logging.StreamHandler(progress.file))
    log.setLevel(logging.INFO)


def guard_of(options: EndpointOptions, *, is_local: bool) -> Guard:
    """ConfigError where whoever reaches it could ask without a key, unasked for. is_local: nobody
    but this machine's programs does.
    """
    keys = Keys.load(options.keys)
    if not keys.owners and not is_local and not options.anyone:
        raise ConfigError("beyond this machine an endpoint needs --keys, or --anyone to do without")
    return Guard(keys=keys, is_local=is_local and not options.anyone)


def _listener(options: EndpointOptions) -> socket.socket:
    """Bound first: a port that is taken is said before a model is loaded."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise ConfigError(f"--host {options.host} --port {options.port}: {why}") from error


@contextmanager
def _data(options: EndpointOptions) -> Iterator[Path]:
    if options.data is not None:
        yield options.data
        return
    with tempfile.TemporaryDirectory(prefix="vidray-serve-") as folder:
        yield Path(folder)
