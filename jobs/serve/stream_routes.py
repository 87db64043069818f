"""Open videos: what happens on them, questions, places."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request, Response

from jobs.serve.admittance import Leave
from jobs.serve.bodies import AskBody, GroundBody, SourceBody, StreamBody, parse
from jobs.serve.conversation import Shown
from jobs.serve.description import EITHER_WAY, takes
from jobs.serve.desk import Desk, answer_on
from jobs.serve.front import owner_of
from jobs.serve.manner import require_followable
from jobs.serve.refusals import not_found
from jobs.serve.request_body import body_of, unless_gone
from jobs.serve.shared_stream import SharedStream
from jobs.serve.sse import EventResponse, block
from jobs.serve.stream_log import LoggedEvent
from jobs.serve.thumbnails import Thumbnails

STREAM_LINGER_S = 10.0  # as LINGER_S, where it is asked on a stream: a page reloads


def add_streams(app: FastAPI, desk: Desk, thumbnails: Thumbnails) -> None:
    @app.post(
        "/v1/streams",
        openapi_extra=takes(StreamBody),
        status_code=201,
        responses={200: {"description": "It is open already."}},
    )
    async def open_stream(request: Request, response: Response) -> dict[str, Any]:
        """Open and plan a video; nothing of it is decoded yet."""
        body = parse(StreamBody, await body_of(request, desk))
        upload = await desk.shown.upload_of(_shown(body.source), owner=owner_of(request))
        stream, is_new = await desk.open(upload, body.plan)
        response.status_code = 201 if is_new else 200
        return desk.body_of(stream)

    @app.get("/v1/streams")
    async def streams(request: Request) -> dict[str, Any]:
        found = desk.streams_of(owner_of(request))
        return {"object": "list", "data": [desk.body_of(each) for each in found]}

    @app.get("/v1/streams/{stream_id}")
    async def one_stream(request: Request, stream_id: str) -> dict[str, Any]:
        return desk.body_of(await desk.stream(stream_id, owner=owner_of(request)))

    @app.delete("/v1/streams/{stream_id}")
    async def close(request: Request, stream_id: str) -> dict[str, Any]:
        await desk.close(await desk.stream(stream_id, owner=owner_of(request)))
        return {"id": stream_id, "object": "vidray.stream", "deleted": True}

    @app.get("/v1/streams/{stream_id}/events", response_class=EventResponse)
    async def events(
        request: Request,
        stream_id: str,
        after: Annotated[int, Query(ge=0)] = 0,
        answer: Annotated[str | None, Query()] = None,
        last_event_id: Annotated[int | None, Header(ge=0)] = None,
    ) -> Response:
        """What has happened after this event, and what happens."""
        owner = owner_of(request)
        stream = await desk.stream(stream_id, owner=owner)
        since, param = (
            (after, "after") if last_event_id is None else (last_event_id, "last-event-id")
        )
        stream.log.require_reached(since, param=param)
        if answer is None:
            return EventResponse(_stream_blocks(stream, since))
        answering = answer_on(stream, answer)
        desk.go_on(answering)
        return EventResponse(_blocks_of(answering.events(since)))

    @app.get("/v1/streams/{stream_id}/frames/{index}", response_class=Response)
    async def frame(
        request: Request,
        stream_id: str,
        index: Annotated[int, "of plan.times_s"],
        width: Annotated[int, Query(ge=16, le=640)] = 160,
    ) -> Response:
        """A sampled frame as JPEG."""
        stream = await desk.stream(stream_id, owner=owner_of(request))
        if index < 0:
            raise not_found("frame")
        jpeg = await thumbnails.jpeg(stream, index, width=width)
        headers = {"cache-control": "private, max-age=86400, immutable"}
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    @app.post(
        "/v1/streams/{stream_id}/ask",
        openapi_extra=takes(AskBody),
        response_model=None,
        responses=EITHER_WAY,
    )
    async def ask(request: Request, stream_id: str) -> Response | dict[str, Any]:
        """A question, or a follow-up."""
        leave_door: Leave = request.state.leave_door
        body = parse(AskBody, await body_of(request, desk))
        await require_followable(body)
        stream = await desk.stream(stream_id, owner=owner_of(request))
        await desk.turnstile.pass_through()
        leave_door()
        answering = desk.ask(
            stream, body.question, body, after=body.after, linger_s=STREAM_LINGER_S
        )
        if body.stream:
            return EventResponse(_blocks_of(answering.events()))
        await unless_gone(request, answering.ended())
        return answering.body

    @app.get("/v1/streams/{stream_id}/answers/{answer}")
    async def one_answer(request: Request, stream_id: str, answer: str) -> dict[str, Any]:
        stream = await desk.stream(stream_id, owner=owner_of(request))
        return answer_on(stream, answer).body

    @app.delete("/v1/streams/{stream_id}/answers/{answer}")
    async def stop(request: Request, stream_id: str, answer: str) -> dict[str, Any]:
        """Stop it; what it has so far stays."""
        stream = await desk.stream(stream_id, owner=owner_of(request))
        answering = answer_on(stream, answer)
        await answering.stop()
        await answering.end_told()
        return answering.body

    @app.post("/v1/streams/{stream_id}/ground", openapi_extra=takes(GroundBody))
    async def ground(request: Request, stream_id: str) -> dict[str, Any]:
        """Where something is."""
        body = parse(GroundBody, await body_of(request, desk))
        stream = await desk.stream(stream_id, owner=owner_of(request))
        request.state.leave_door()
        return await unless_gone(request, desk.ground(stream, body.query, body.times_s))


def _shown(source: SourceBody) -> Shown:
    return Shown(url=source.url or "", file_id=source.file_id)


async def _stream_blocks(stream: SharedStream, after: int) -> AsyncIterator[str]:
    stream.log.num_followers += 1
    try:
        async with aclosing(_blocks_of(stream.log.follow(after))) as blocks:  # type: ignore[type-var]
            async for each in blocks:
                yield each
    finally:
        stream.log.num_followers -= 1


async def _blocks_of(events: AsyncIterator[LoggedEvent]) -> AsyncIterator[str]:
    async with aclosing(events) as source:  # type: ignore[type-var]
        async for event in source:
            yield block(event.text, number=event.number, name=event.name)
