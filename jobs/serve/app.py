"""The routes. Everything they do is one step at the desk; what goes wrong becomes a Refusal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.routing import Match

from jobs.ingest.hints import Hints
from jobs.serve.bodies import AskBody, ChatBody, GroundBody, StreamBody, require_object
from jobs.serve.chat_routes import add_chats
from jobs.serve.description import ANY_OBJECT, describe
from jobs.serve.desk import Desk
from jobs.serve.file_routes import add_files
from jobs.serve.front import Front, Guard
from jobs.serve.refusals import Refusal, invalid, not_found, refusal_of
from jobs.serve.request_body import body_of
from jobs.serve.shedding import Shedding
from jobs.serve.stream_routes import add_streams
from jobs.serve.thumbnails import Thumbnails
from pipeline.config import DecodeLimits
from pipeline.errors import VidrayError

PAGE = Path(__file__).parent / "page"
PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def make_app(
    desk: Desk,
    *,
    guard: Guard | None = None,
    limits: DecodeLimits | None = None,
    hints: Hints | None = None,
) -> FastAPI:
    """The whole endpoint around a desk, which lives as long as the app."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with desk:
            yield

    app = FastAPI(title="vidray", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.desk = desk
    _add_errors(app)
    _add_health(app, desk)
    add_chats(app, desk)
    add_files(app, desk)
    add_streams(app, desk, Thumbnails(desk.uploads, limits or DecodeLimits()))
    _add_ingest(app, desk, hints or Hints({}))
    _add_page(app)
    app.add_middleware(
        Shedding, admittance=desk.admittance, is_known=desk.is_known, may_be=desk.may_be_known
    )
    app.add_middleware(Front, guard=guard or Guard(), meters=desk.sight.meters)
    describe(app, (ChatBody, StreamBody, AskBody, GroundBody))
    return app


def _add_errors(app: FastAPI) -> None:
    async def tell(request: Request, error: Exception) -> Response:
        refusal = refusal_of(error)
        return JSONResponse(refusal.body, refusal.status, headers=refusal.headers)

    async def tell_http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status != 405:
            return await tell(request, Refusal(status, "not_found", "there is no such route"))
        what = f"{request.method} is not for this"
        response = await tell(request, Refusal(405, "method_not_allowed", what))
        response.headers["allow"] = ", ".join(_methods_of(app, request))
        return response

    async def tell_invalid(request: Request, error: Exception) -> Response:
        errors = error.errors() if isinstance(error, RequestValidationError) else []
        return await tell(request, invalid(errors) if errors else refusal_of(error))

    app.add_exception_handler(Refusal, tell)
    app.add_exception_handler(VidrayError, tell)
    app.add_exception_handler(TimeoutError, tell)
    app.add_exception_handler(HTTPException, tell_http)
    app.add_exception_handler(RequestValidationError, tell_invalid)
    app.add_exception_handler(Exception, tell)


def _methods_of(app: FastAPI, request: Request) -> list[str]:
    """What there is at its path, over all routes: each route knows its own methods only."""
    at_path = (route for route in app.routes if route.matches(request.scope)[0] is not Match.NONE)
    found: set[str] = set().union(*(getattr(route, "methods", ()) for route in at_path))
    return sorted(found or {"GET", "HEAD"})  # of static files, which are no routes of the app


def _add_health(app: FastAPI, desk: Desk) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """A video would be answered."""
        await desk.require_ready()
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(desk.sight.meters.page(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/sight")
    async def sight() -> dict[str, Any]:
        """What the operator's view shows: rates of the last seconds, queues, failures."""
        return desk.sight.body


def _add_ingest(app: FastAPI, desk: Desk, hints: Hints) -> None:
    @app.post("/v1/ingest/{name}/notify", status_code=202, openapi_extra=ANY_OBJECT)
    async def notify(request: Request, name: str) -> dict[str, Any]:
        """Something may be new in a schedule's source: an event of S3, of which nothing is kept."""
        require_object(await body_of(request, desk))
        if name not in hints:
            raise not_found("schedule")
        is_new = await asyncio.to_thread(hints.give, name)
        return {"schedule": name, "hint": "noted" if is_new else "known"}


def _add_page(app: FastAPI) -> None:
    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
