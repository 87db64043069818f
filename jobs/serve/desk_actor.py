"""The endpoint in an actor of its own, which outlives whatever carries requests to it.

It owns the fleet, the open streams, the answers so far and the counts of who asks how much. Ingress
replicas come, go and die; the next one goes on with any stream.
"""

import asyncio
import hashlib
import time
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any, cast

import ray
from starlette.types import Message, Scope

from actors.calls import Handle
from actors.pools import NAMESPACE
from jobs.console import console_of
from jobs.serve.endpoint_options import EndpointOptions
from jobs.serve.server import guard_of, log_requests, opened_endpoint
from jobs.serve.visit import Visits
from jobs.serving import ServingOptions
from pipeline.settings import Settings

LEAVE_S = 60.0  # without an ingress; then it ends, and the fleet with it
LOOK_S = 0.5
MAX_VISITS = 10_000


class DeskSettings(Settings):
    """What a Serve application is given as its args."""

    serving: ServingOptions = ServingOptions()
    endpoint: EndpointOptions = EndpointOptions()

    @property
    def name(self) -> str:
        """Other settings are another desk."""
        return f"desk-{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]}"


def find_desk(settings: DeskSettings) -> Handle:
    """The one that runs with these settings; it begins if there is none."""
    actor: Any = DeskActor
    return cast(
        Handle,
        actor.options(
            name=settings.name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_concurrency=MAX_VISITS,
        ).remote(settings),
    )


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)
class DeskActor:
    """Visits to the endpoint's app. errors: ConfigError when it cannot start."""

    def __init__(self, settings: DeskSettings) -> None:
        self._settings = settings
        self._fleet = ExitStack()
        self._visits: Visits | None = None
        self._is_starting = asyncio.Lock()
        self._seen_s = time.monotonic()
        self._watching: asyncio.Task[None] | None = None
        self._life: AbstractAsyncContextManager[Any] | None = None

    async def ready(self) -> None:
        """Return when the model is loaded. Whoever calls keeps this desk for another LEAVE_S."""
        self._seen_s = time.monotonic()
        await self._started()

    async def begin(self, visit_id: str, scope: Scope) -> None:
        await (await self._started()).begin(visit_id, scope)

    async def feed(self, visit_id: str, body: bytes, more: bool) -> bool:
        return await (await self._started()).feed(visit_id, body, more)

    async def said(self, visit_id: str) -> list[Message]:
        return await (await self._started()).said(visit_id)

    async def hang_up(self, visit_id: str) -> None:
        await (await self._started()).hang_up(visit_id)

    async def _started(self) -> Visits:
        async with self._is_starting:
            if self._visits is None:
                log_requests(console_of(stderr=True))
                app = await asyncio.to_thread(self._fleet.enter_context, _opened(self._settings))
                self._life = app.router.lifespan_context(app)  # or what nobody holds would end now
                await self._life.__aenter__()  # it ends with this process
                self._visits = Visits(app)
                self._watching = asyncio.create_task(self._watch(self._visits))
            return self._visits

    async def _watch(self, visits: Visits) -> None:
        """Give up what nobody carries any more; end when no ingress needs this desk."""
        while True:
            await asyncio.sleep(LOOK_S)
            await visits.give_up()
            if visits.num_open:
                self._seen_s = time.monotonic()
            elif time.monotonic() - self._seen_s > LEAVE_S:
                await asyncio.to_thread(self._fleet.close)
                ray.kill(ray.get_runtime_context().current_actor)


def _opened(settings: DeskSettings) -> Any:
    guard = guard_of(settings.endpoint, is_local=False)
    serving = settings.serving.model_copy(update={"address": "auto"})
    return opened_endpoint(serving, settings.endpoint, console_of(stderr=True), guard=guard)
