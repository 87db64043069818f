"""What the published OpenAPI says holds for whatever is sent: schemathesis makes requests of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from jobs.serve.description import REFUSALS
from tests.endpoint import tiny_endpoint
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
LITTLE = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def try_all(document: Any) -> list[str]:
    """Send a few requests to every operation; which there are. FailureGroup for a wrong answer."""
    labels = []
    for result in document.get_all_operations():
        operation = result.ok()

        @LITTLE
        @given(case=operation.as_strategy())
        def send(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        send()
        labels.append(operation.label)
    return labels


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("openapi")
    model = write_folder(folder / "model", max_pixels=CHUNKED_PIXELS)
    with tiny_endpoint(model, folder / "data", key_requests=100_000) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def test_nothing_that_may_be_sent_is_answered_in_an_undocumented_way(published: Any):
    labels = try_all(published)
    assert "POST /v1/chat/completions" in labels
    assert len(labels) > 20


def test_bodies_keys_and_every_status_that_is_refused_with_are_published(published: Any):
    document = published.raw_schema
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert "default" not in operation["responses"]
            assert {str(status) for status in REFUSALS} <= set(operation["responses"])
            assert ("requestBody" in operation) == (method == "post"), path
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["security"] == [{"key": []}, {}]
    page = (Path(__file__).parents[2] / "docs" / "endpoint.md").read_text()
    told = {int(status) for status in re.findall(r"^\| (\d{3}) \| `", page, re.MULTILINE)}
    assert told == {405, *REFUSALS}


def test_an_answer_that_is_not_documented_would_be_found():
    app = FastAPI()

    @app.get("/teapot")
    def teapot() -> JSONResponse:
        return JSONResponse({}, 418)

    with pytest.raises(FailureGroup) as found:
        try_all(schemathesis.openapi.from_asgi("/openapi.json", app))
    assert "418" in repr(found.value.exceptions) + str(found.value.exceptions[0])
