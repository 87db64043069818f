"""An answer in the shapes of OpenAI's chat API: a body, or chunks as they come."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from jobs.serve.answer_run import AnswerRun
from jobs.serve.refusals import refusal_of
from jobs.serve.sse import block
from jobs.serve.stream_log import LoggedEvent


def completion_id(answering: AnswerRun) -> str:
    return answering.id.replace("answer-", "chatcmpl-")


def answer_id(completion: str) -> str:
    return completion.replace("chatcmpl-", "answer-")


def completion_body(answering: AnswerRun, model: str) -> dict[str, Any]:
    """A whole answer."""
    message = {"role": "assistant", "content": answering.text, "refusal": None}
    end = {"logprobs": None, "finish_reason": answering.finish_reason}
    return {
        **_head(answering, model, "chat.completion"),
        "choices": [{"index": 0, "message": message, **end}],
        "usage": usage_body(answering),
        "vidray": _vidray(answering),
    }


async def completion_blocks(
    answering: AnswerRun,
    model: str,
    *,
    with_usage: bool,
    with_progress: bool,
    after: int | None = None,
) -> AsyncIterator[str]:
    """Chunks from the first, or from after this event, to [DONE] or the error that ended it."""
    head = _head(answering, model, "chat.completion.chunk")
    if with_usage:
        head["usage"] = None
    async with aclosing(answering.events(after)) as events:  # type: ignore[type-var]
        async for event in events:
            if event.name == "failed":
                yield block({"error": event.data["error"]}, number=event.number)
                return
            chunk = _chunk(event, answering, with_progress=with_progress)
            if chunk is not None:
                yield block(head | chunk, number=event.number)
    if with_usage:
        yield block(head | {"choices": [], "usage": usage_body(answering)})
    yield block("[DONE]")


async def accepted_blocks(
    beginning: Awaitable[AnswerRun], blocks_of: Callable[[AnswerRun], AsyncIterator[str]]
) -> AsyncIterator[str]:
    """Of an answer that is accepted before it is known whether it can be given."""
    yield ": accepted\n\n"
    try:
        answering = await beginning
    except Exception as error:  # noqa: BLE001 - whoever listens is told
        yield block({"error": refusal_of(error).body["error"]})
        return
    async with aclosing(blocks_of(answering)) as blocks:  # type: ignore[type-var]
        async for each in blocks:
            yield each


def usage_body(answering: AnswerRun) -> dict[str, Any]:
    usage = answering.usage
    return {
        "prompt_tokens": usage.num_prompt,
        "completion_tokens": usage.num_completion,
        "total_tokens": usage.num_prompt + usage.num_completion,
        "prompt_tokens_details": {
            "cached_tokens": usage.num_cached,
            "video_tokens": usage.num_video,
        },
    }


def _chunk(
    event: LoggedEvent, answering: AnswerRun, *, with_progress: bool
) -> dict[str, Any] | None:
    if event.name == "asked":
        return _choice({"role": "assistant", "content": ""})
    if event.name == "words":
        return _choice({"content": event.data["text"]})
    if event.name == "answered":
        return _choice({}, finish_reason=answering.finish_reason) | {"vidray": _vidray(answering)}
    if with_progress:
        return _choice({}) | {"vidray": {"event": event.name, **event.data}}
    return None


def _choice(delta: dict[str, Any], *, finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {"choices": [choice]}


def _head(answering: AnswerRun, model: str, kind: str) -> dict[str, Any]:
    return {
        "id": completion_id(answering),
        "object": kind,
        "created": answering.created_at,
        "model": model,
    }


def _vidray(answering: AnswerRun) -> dict[str, Any]:
    return {
        "stream": answering.stream.id,
        "answer": answering.id,
        "frames_decoded": answering.body["usage"]["frames_decoded"],
    }
