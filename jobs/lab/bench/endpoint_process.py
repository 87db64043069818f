"""What is measured, in a process of its own: the endpoint or a clock, plain or under Ray Serve.

`python -m jobs.lab.bench.endpoint_process plain|serve endpoint|clock FOLDER` says its address and
ends with its standard input. For each line there it says how many videos hold keys and values. The
proxy of Ray Serve is that of RAY_SERVE_ENABLE_HA_PROXY; a profile and a model in FOLDER are the
endpoint's.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server, socket

import ray
from ray import serve
from rich.console import Console
from starlette.types import ASGIApp

from actors.cluster import start_local_ray
from jobs.lab.bench.clock_app import clock, clock_deployment
from jobs.serve.desk_actor import DeskSettings
from jobs.serve.endpoint_options import EndpointOptions
from jobs.serve.front import Guard
from jobs.serve.ingress import deployment
from jobs.serve.server import opened_endpoint, server_of
from jobs.serving import ServingOptions

PROFILE_FILE, MODEL_FOLDER = "profile.yaml", "model"
OBJECT_STORE_BYTES = 256 << 20
NUM_CPUS = 8  # that actors may ask for, whatever the machine has


def run(way: str, what: str, folder: Path) -> None:
    """Say the address, and then what is held, until nobody asks any more."""
    with create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with _plain(what, folder, listener) if way == "plain" else _serve(what, folder, listener):
            print(f"{what} answers at http://127.0.0.1:{port}/", flush=True)
            for _ in sys.stdin:
                print(num_held(), flush=True)


def num_held() -> int:
    """Videos, and answers on them, that a decoder of this Ray keeps keys and values of."""
    named = ray.util.list_named_actors(all_namespaces=True)
    decoders = [
        ray.get_actor(each["name"], namespace=each["namespace"])
        for each in named
        if "/decoder-" in each["name"]
    ]
    return sum(map(len, ray.get([each.streams.remote() for each in decoders])))


@contextmanager
def _plain(what: str, folder: Path, listener: socket) -> Iterator[None]:
    if what == "clock":
        with _served(clock, listener):
            yield
        return
    settings = _settings(folder)
    with (
        opened_endpoint(
            settings.serving, settings.endpoint, Console(stderr=True), guard=Guard()
        ) as app,
        _served(app, listener),
    ):
        yield


@contextmanager
def _served(app: ASGIApp, listener: socket) -> Iterator[None]:
    server = server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def _serve(what: str, folder: Path, listener: socket) -> Iterator[None]:
    port = listener.getsockname()[1]
    listener.close()
    start_local_ray(object_store_bytes=OBJECT_STORE_BYTES, num_cpus=NUM_CPUS)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port, "keep_alive_timeout_s": 620})
        wanted = clock_deployment() if what == "clock" else deployment()
        one = wanted.options(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=1_000)
        serve.run(one.bind(_settings(folder)), name="vidray", route_prefix="/")
        yield
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _settings(folder: Path) -> DeskSettings:
    profile, model = folder / PROFILE_FILE, folder / MODEL_FOLDER
    return DeskSettings(
        serving=ServingOptions(
            profile=profile if profile.exists() else None,
            model=model if model.exists() else None,
        ),
        endpoint=EndpointOptions(
            anyone=True, data=folder / "uploads", key_answers=256, key_requests=1_000_000
        ),
    )


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
