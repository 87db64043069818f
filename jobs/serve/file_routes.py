"""Uploads: OpenAI's files, and what a video's header says."""

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse

from jobs.serve.description import FORM
from jobs.serve.desk import Desk
from jobs.serve.form import UploadForm
from jobs.serve.front import owner_of
from jobs.serve.refusals import Refusal
from jobs.serve.request_body import blocks_of, require_length

MAX_FORM_BYTES = 65_536  # around the file
EXPIRES_AFTER = "expires_after[seconds]"


def add_files(app: FastAPI, desk: Desk) -> None:
    uploads = desk.uploads

    @app.post("/v1/files", openapi_extra=FORM)
    async def upload(request: Request) -> dict[str, Any]:
        """Keep a video: a multipart form with `file` and `purpose`."""
        desk.require_open()
        require_length(request, uploads.max_bytes + MAX_FORM_BYTES)
        file = uploads.incoming()
        try:
            form = UploadForm(request.headers.get("content-type", ""), file.write)
            async for data in blocks_of(request, desk):
                await form.feed(data)
            if not form.is_whole or not form.has_file:
                raise Refusal(422, "invalid", "the form holds no whole file", "file")
            purpose = form.fields.get("purpose")
            if not purpose:
                told = "a file comes with its purpose, such as user_data"
                raise Refusal(422, "invalid", told, "purpose")
            kept = await uploads.keep(
                file,
                owner=owner_of(request),
                filename=form.filename,
                purpose=purpose,
                keep_s=_keep_s(form.fields, most_s=int(uploads.keep_s)),
            )
        finally:
            file.discard()
        return kept.body

    @app.get("/v1/files")
    async def files(request: Request) -> dict[str, Any]:
        found = await asyncio.to_thread(uploads.all_of, owner_of(request))
        return {"object": "list", "data": [each.body for each in found], "has_more": False}

    @app.get("/v1/files/{file_id}")
    async def file(request: Request, file_id: str) -> dict[str, Any]:
        return uploads.get(file_id, owner=owner_of(request)).body

    @app.get(
        "/v1/files/{file_id}/content",
        response_class=FileResponse,
        responses={206: {"description": "The range that was asked for."}},
    )
    async def content(request: Request, file_id: str) -> FileResponse:
        """The bytes, ranges too."""
        found = uploads.get(file_id, owner=owner_of(request))
        return FileResponse(
            uploads.source(found).path,
            media_type="application/octet-stream" if found.media["is_still"] else "video/mp4",
            headers={"x-content-type-options": "nosniff", "content-security-policy": "sandbox"},
        )

    @app.delete("/v1/files/{file_id}")
    async def delete(request: Request, file_id: str) -> dict[str, Any]:
        found = uploads.get(file_id, owner=owner_of(request))
        await asyncio.to_thread(uploads.remove, found)
        return {"id": file_id, "object": "file", "deleted": True}


def _keep_s(fields: Mapping[str, str], *, most_s: int) -> int | None:
    """How long a client wants its file to be kept, as OpenAI's says it; None where it does not."""
    given = fields.get(EXPIRES_AFTER)
    if given is None:
        return None
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= most_s:
        told = f"a file is kept for 1 to {most_s} seconds from created_at, got {given[:20]!r}"
        raise Refusal(422, "invalid", told, EXPIRES_AFTER)
    return int(given)
