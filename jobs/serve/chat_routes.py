"""OpenAI's chats: a question about a video, its answer at once or word by word."""

import asyncio
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response

from jobs.serve.admittance import Leave
from jobs.serve.answer_run import AnswerRun
from jobs.serve.bodies import ChatBody
from jobs.serve.body_ids import body_id_of
from jobs.serve.completions import accepted_blocks, answer_id, completion_blocks, completion_body
from jobs.serve.conversation import conversation_of
from jobs.serve.description import EITHER_WAY, takes
from jobs.serve.desk import Desk
from jobs.serve.front import owner_of, waited_s
from jobs.serve.manner import require_followable
from jobs.serve.refusals import Refusal
from jobs.serve.request_body import body_of, parsed, unless_gone
from jobs.serve.sse import EventResponse

LINGER_S = 1.0  # that an answer goes on for nobody; then it is paused
# Who waits for a whole answer and hangs up was out of patience and asks again: openai's client
# within 8 s.
WHOLE_LINGER_S = 10.0
ACCEPT_S = 0.5  # from when a chat came until it is accepted: its video may be long in coming


def add_chats(app: FastAPI, desk: Desk) -> None:
    model = desk.videos.name

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model."""
        return {"object": "list", "data": [_model_body(desk)]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        _require_model(name, model)
        return _model_body(desk)

    @app.post(
        "/v1/chat/completions",
        openapi_extra=takes(ChatBody),
        response_model=None,
        responses=EITHER_WAY,
    )
    async def chat(request: Request) -> Response | dict[str, Any]:
        """A question about a video, answered at once or word by word."""
        raw = await body_of(request, desk)
        body = await parsed(ChatBody, raw)
        _require_model(body.model, model)
        owner = owner_of(request)
        body_id = body_id_of(request.headers, raw)
        leave_door: Leave = request.state.leave_door
        begin = partial(_begin_chat, desk, body, owner, body_id, leave_door)
        beginning = asyncio.ensure_future(desk.once(owner, body_id, begin))
        blocks_of = partial(
            completion_blocks,
            model=model,
            with_usage=body.stream_options is not None and body.stream_options.include_usage,
            with_progress=body.vidray.progress,
        )
        if body.stream:
            await asyncio.wait({beginning}, timeout=max(0.0, ACCEPT_S - waited_s(request)))
            if not beginning.done():
                return EventResponse(accepted_blocks(beginning, blocks_of))
            answering = await beginning
            leave_door()
            return EventResponse(blocks_of(answering))
        answering = await unless_gone(request, beginning)
        leave_door()  # also of one that was begun before
        await unless_gone(request, answering.ended())
        return completion_body(answering, model)

    @app.get("/v1/chat/completions/{completion_id}", response_class=EventResponse)
    async def rest(
        request: Request, completion_id: str, after: Annotated[int, Query(ge=0)] = 0
    ) -> Response:
        """The chunks that came after this event, and those to come."""
        answering = await desk.answer(answer_id(completion_id), owner=owner_of(request))
        answering.stream.log.require_reached(after, param="after")
        desk.go_on(answering)
        blocks = completion_blocks(
            answering, model, with_usage=True, with_progress=False, after=after
        )
        return EventResponse(blocks)


async def _begin_chat(
    desk: Desk, body: ChatBody, owner: str, body_id: str, leave_door: Leave
) -> AnswerRun:
    conversation = conversation_of(body)
    await require_followable(body)
    await desk.turnstile.pass_through()
    upload = await desk.shown.upload_of(conversation.shown, owner=owner)
    stream, _ = await desk.open(upload, conversation.shown.sampling)
    leave_door()
    return desk.ask(
        stream,
        conversation.question,
        body,
        turns=conversation.turns,
        linger_s=LINGER_S if body.stream else WHOLE_LINGER_S,
        body_id=body_id,
    )


def _model_body(desk: Desk) -> dict[str, Any]:
    return {
        "id": desk.videos.name,
        "object": "model",
        "created": desk.started_at,
        "owned_by": "vidray",
    }


def _require_model(asked: str, served: str) -> None:
    if asked != served:
        raise Refusal(404, "model_not_found", f"the model here is {served}", "model")
