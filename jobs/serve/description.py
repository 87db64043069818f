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
# Of any route: docs/endpoint.md has the codes of each.
REFUSALS = (400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 504, 507)
_REFUSED = {
    "description": "A refusal; docs/endpoint.md lists the codes.",
    "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Error")}}},
}
_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key of the server's `--keys`; where it has none, nothing is sent.",
}
# Of the upload.
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "minLength": 1, "examples": ["user_data"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 1},
                    },
                }
            }
        },
    }
}
# Of an event whose kind is its sender's.
ANY_OBJECT = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
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
            document["components"]["securitySchemes"] = {"key": _KEY}
            document["security"] = [{"key": []}, {}]
            for operations in document["paths"].values():
                for operation in operations.values():
                    # FastAPI's own 422 has a shape that is never sent.
                    operation["responses"] |= {str(status): _REFUSED for status in REFUSALS}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
