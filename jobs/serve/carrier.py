"""From a client to the desk and back: what an ingress does with a request."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar
from uuid import uuid4

from ray.exceptions import RayError
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from actors.calls import Handle
from jobs.serve.paced_body import PacedBody
from jobs.serve.refusals import Refusal
from pipeline.errors import Transient

PATIENCE_S = 10.0  # with a desk that says nothing; while it works it says so every second
BODY_BYTES = 90 << 10  # that travel at a time: from 100 KiB on they lie in Ray's store for a while
SCOPE_KEYS = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string")
LOST = Refusal(503, "lost", "the desk is away; try again", None, 1)
Value = TypeVar("Value")


class Carrier:
    """desk: an actor with the methods of Visits."""

    def __init__(self, desk: Handle) -> None:
        self.desk = desk

    async def carry(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request to the desk, and its answer back."""
        desk, visit_id = self.desk, uuid4().hex
        bringing: asyncio.Task[None] | None = None
        has_begun = False
        try:
            await _soon(desk.begin.remote(visit_id, _scope(scope)))
            bringing = asyncio.create_task(_bring(desk, visit_id, PacedBody(receive)))
            while not bringing.done():  # then its client is gone
                for message in await _soon(desk.said.remote(visit_id)):
                    has_begun = True
                    await send(message)
                    if _is_last(message):
                        return
            bringing.result()
        except (RayError, Transient, TimeoutError) as error:
            if has_begun:
                raise ConnectionError("the desk is lost in mid-answer") from error
            await _tell(LOST, scope, receive, send)
        finally:
            if bringing is not None:
                bringing.cancel()
                await asyncio.gather(bringing, return_exceptions=True)
            desk.hang_up.remote(visit_id)


async def _bring(desk: Handle, visit_id: str, receive: Receive) -> None:
    """Its body, as far as it is wanted; ends when the client hangs up."""
    data, is_wanted = bytearray(), True
    while (message := await receive())["type"] != "http.disconnect":
        if not is_wanted:
            continue
        data += message.get("body", b"")
        more = message.get("more_body", False)
        while is_wanted and (len(data) >= BODY_BYTES or not more):
            piece = bytes(data[:BODY_BYTES])
            del data[:BODY_BYTES]
            is_wanted = await desk.feed.remote(visit_id, piece, more or bool(data))


async def _soon(call: Awaitable[Value]) -> Value:
    return await asyncio.wait_for(call, PATIENCE_S)


def _scope(scope: Scope) -> dict[str, Any]:
    """What the app looks at, and nothing that stays here."""
    kept = {key: scope[key] for key in SCOPE_KEYS if key in scope}
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    return {**kept, "asgi": {"version": "3.0"}, "root_path": "", "headers": headers}


def _is_last(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body", False)


async def _tell(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    response = JSONResponse(refusal.body, refusal.status, headers=refusal.headers)
    await response(scope, receive, send)
