"""What the benchmarks ask of an endpoint, over aiohttp: many clients in one loop."""

import random
from pathlib import Path
from typing import Any

import aiohttp


async def model_name(web: aiohttp.ClientSession) -> str:
    async with web.get("/v1/models") as answer:
        answer.raise_for_status()
        return str((await answer.json())["data"][0]["id"])


async def sent(web: aiohttp.ClientSession, clip: Path) -> str:
    """Its id as an upload. The file is read as it goes."""
    form = aiohttp.FormData({"purpose": "user_data"})
    with clip.open("rb") as file:
        form.add_field("file", file, filename=clip.name)
        async with web.post("/v1/files", data=form) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {await answer.text()}")
            return str((await answer.json())["id"])


def chat_body(model: str, file_id: str, question: str) -> dict[str, Any]:
    """A question about an upload, streamed."""
    parts = [{"type": "file", "file": {"file_id": file_id}}, {"type": "text", "text": question}]
    return {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def another_key() -> dict[str, str]:
    """A header, so that no answer is given twice."""
    return {"idempotency-key": f"{random.getrandbits(128):x}"}  # noqa: S311
