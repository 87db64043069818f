"""An app whose every word is the moment it was said: how late words come, whatever is in between.

Plain under uvicorn, and under Ray Serve the way vidray's own goes, through a replica and a desk.
"""

import asyncio
import time
from typing import Any

import ray
from ray import serve
from starlette.types import Message, Receive, Scope, Send

from jobs.serve.carrier import Carrier
from jobs.serve.ingress import replica_app
from jobs.serve.visit import Visits

NUM_WORDS = 100
WORD_S = 0.02  # as far apart as the decoder writes


async def clock(scope: Scope, receive: Receive, send: Send) -> None:
    """Words of CLOCK_MONOTONIC, which all processes of a machine share."""
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(NUM_WORDS):
        body = f"data: {time.monotonic()}\n\n".encode()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(WORD_S)
    await send({"type": "http.response.body", "body": b""})


@ray.remote(num_cpus=0)
class ClockDesk:
    """What DeskActor is to the endpoint."""

    def __init__(self) -> None:
        self._visits = Visits(clock)

    async def begin(self, visit_id: str, scope: Scope) -> None:
        await self._visits.begin(visit_id, scope)

    async def feed(self, visit_id: str, body: bytes, more: bool) -> bool:
        return await self._visits.feed(visit_id, body, more)

    async def said(self, visit_id: str) -> list[Message]:
        return await self._visits.said(visit_id)

    async def hang_up(self, visit_id: str) -> None:
        await self._visits.hang_up(visit_id)


class ClockIngress:
    """What Ingress is; the settings are not looked at."""

    def __init__(self, settings: object) -> None:
        desk: Any = ClockDesk
        self.carrier = Carrier(desk.options(max_concurrency=1_000).remote())


def clock_deployment() -> Any:
    return serve.deployment(name="Clock")(serve.ingress(replica_app)(ClockIngress))
