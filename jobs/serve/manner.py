"""How an answer is to be written: from what a client asks for to what the engine takes."""

import asyncio
import json
from dataclasses import replace
from typing import Any

from jobs.serve.bodies import Manner
from jobs.serve.refusals import Refusal, above
from pipeline.config import Sampling
from pipeline.engine.constraint import Choices, Constraint, JsonSchema, require_usable
from pipeline.errors import BadInput

ANY_OBJECT = '{"type":"object"}'


def sampling_of(manner: Manner, own: Sampling, *, max_tokens: int) -> Sampling:
    """The checkpoint's own way, with what was asked for instead. Refusal above the ceiling, or
    where there are two that differ.
    """
    asked = {"max_tokens": manner.max_tokens, "max_completion_tokens": manner.max_completion_tokens}
    if len({*asked.values()} - {None}) > 1:
        old, new = asked.values()
        told = f"max_tokens is {old} and max_completion_tokens {new}; send one of them"
        raise Refusal(422, "invalid", told, "max_completion_tokens")
    for name, number in asked.items():
        if number is not None and number > max_tokens:
            raise above(name, most=max_tokens, got=number)
    if manner.temperature is not None:
        own = replace(own, top_k=0, top_p=1.0)
    wanted: dict[str, Any] = {
        "temperature": manner.temperature,
        "top_p": manner.top_p,
        "top_k": None if manner.top_k is None else max(manner.top_k, 0),
        "repetition_penalty": manner.repetition_penalty,
        "seed": manner.seed,
        "stop": manner.stop,
        "max_new_tokens": min(filter(None, asked.values()), default=own.max_new_tokens),
    }
    return replace(own, **{name: value for name, value in wanted.items() if value is not None})


def constraint_of(manner: Manner) -> Constraint | None:
    """What the answer is held to. BadInput for a schema that cannot be."""
    form = manner.response_format
    if manner.choices is not None:
        if form is not None and form.type != "text":
            raise Refusal(422, "invalid", "choices and response_format exclude each other")
        return Choices(manner.choices)
    if form is None or form.type == "text":
        return None
    if form.json_schema is None:
        return JsonSchema(ANY_OBJECT)
    return JsonSchema(json.dumps(form.json_schema.json_schema))


async def require_followable(manner: Manner) -> None:
    """Refusal (422) that says why no answer can be held to what is asked for."""
    try:
        constraint = constraint_of(manner)
        if constraint is not None:
            await asyncio.to_thread(require_usable, constraint)
    except BadInput as error:
        param = "response_format" if manner.choices is None else "choices"
        raise Refusal(422, error.code.value, error.detail, param) from None
