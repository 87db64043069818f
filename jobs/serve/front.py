"""What every request passes first: it gets an id, an owner and a line in the log.

Covered: a missing or wrong key, on every route but health and the page's own files; a page of
another site, or of a name that was made to point here, where no keys guard a loopback address.
Not covered: prompts, keys and what is answered are never in the log; who it was, what route, how it
ended and how long it took are.
"""

import json
import logging
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.serve.keys import Keys
from jobs.serve.refusals import Refusal
from jobs.sight.meters import Meters

ANYONE = "anyone"  # the owner of everything where no keys are set
OPEN_ROUTES = ("/healthz", "/readyz", "/")
OPEN_FOLDER = "/page/"  # static files, nobody's data
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("vidray.access")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """keys: who may ask. is_local: nobody but this machine's own programs and pages."""

    keys: Keys = Keys({})
    is_local: bool = False

    def owner(self, path: str, headers: Headers) -> str:
        """Whose request it is. Refusal for nobody's."""
        if self.keys.owners:
            return self._known(path, headers)
        if self.is_local and not _is_from_here(headers):
            raise Refusal(403, "forbidden", "this endpoint answers this machine's own pages only")
        return ANYONE

    def _known(self, path: str, headers: Headers) -> str:
        owner = self.keys.owner(headers.get("authorization", ""))
        if owner is None and path not in OPEN_ROUTES and not path.startswith(OPEN_FOLDER):
            raise Refusal(401, "invalid_api_key", "send a valid key: Authorization: Bearer KEY")
        return owner or ANYONE


class Front:
    """Around the app."""

    def __init__(self, app: ASGIApp, guard: Guard, meters: Meters) -> None:
        self._app = app
        self._guard = guard
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked_id = headers.get("x-request-id", "")
        request_id = asked_id if _REQUEST_ID.fullmatch(asked_id) else f"req-{uuid4().hex[:24]}"
        entry = {"request_id": request_id, "method": scope["method"], "path": scope["path"][:200]}
        started_s = time.monotonic()

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
                entry["status"] = message["status"]
            await send(message)

        try:
            owner = entry["owner"] = self._guard.owner(scope["path"], headers)
            scope.setdefault("state", {}).update(owner=owner, came_s=started_s)
            await self._app(scope, receive, tell)
        except Refusal as refusal:
            response = JSONResponse(refusal.body, refusal.status, headers=refusal.headers)
            await response(scope, receive, tell)
        finally:
            _write(entry, took_s=time.monotonic() - started_s)
            route = getattr(scope.get("route"), "path", "none")
            self._meters.add(
                "vidray_requests",
                method=scope["method"] if scope["method"] in _METHODS else "other",
                route=route,
                status=str(entry.get("status", 0)),
            )


def owner_of(request: Request) -> str:
    """Whose request it is."""
    owner: str = request.state.owner
    return owner


def waited_s(request: Request) -> float:
    """Since it came."""
    came_s: float = request.state.came_s
    return time.monotonic() - came_s


def _is_from_here(headers: Headers) -> bool:
    """Neither another site's page, nor a name of the web's that points here."""
    host = headers.get("host", "")
    origin = headers.get("origin")
    is_own_page = origin is None or urlsplit(origin).netloc == host
    return is_own_page and urlsplit(f"//{host}").hostname in LOOPBACK_NAMES


def _write(entry: dict[str, Any], *, took_s: float) -> None:
    line = {"time": round(time.time(), 3), **entry, "took_s": round(took_s, 4)}
    _log.info(json.dumps(line))
