"""The published OpenAPI: `parse` reads the bodies so FastAPI is told of them here."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from pipeline.settings import Settings

_REFERENCE = "#/components/schemas/{model}"
_TEXT = {"type": ["string", "null"]}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {name: _TEXT for name in ("message", "type", "param", "code")},
        }
    },
}
_REFUSED = {
    "description": "A refusal; docs/endpoint.md lists the codes.",
    "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Error")}}},
}
# Of a route that answers at once or as server-sent events.
EITHER_WAY: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The whole answer; with `stream`, server-sent events.",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
}


def takes(kind: type[Settings]) -> dict[str, Any]:
    """Of a route: its body."""
    schema = {"$ref": _REFERENCE.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe(app: FastAPI, bodies: Sequence[type[Settings]]) -> None:
    """Have the app publish these bodies too."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _, schemas = models_json_schema(
                [(kind, "validation") for kind in bodies], ref_template=_REFERENCE
            )
            document = get_openapi(title=app.title, version="1", routes=app.routes)
            document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            document["components"]["schemas"]["Error"] = ERROR
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)  # FastAPI's own shape is never sent
                    operation["responses"]["default"] = _REFUSED
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
