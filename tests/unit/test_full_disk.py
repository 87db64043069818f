"""A disk that is full: what it has no room for is refused by that name, and leaves nothing."""

import asyncio
import base64
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobs.serve.uploads import Incoming, Uploads
from pipeline.config import DecodeLimits
from pipeline.errors import StoreFull
from tests.endpoint import MODEL, TIMEOUT_S, bare_endpoint
from tests.media_factory import Clip, make

FULL = Path("/dev/full")  # where every write ends as on a disk that is full

pytestmark = pytest.mark.timeout(60)


def listed(data: Path) -> list[Path]:
    """All files below."""
    return [path for path in data.rglob("*") if path.is_file()]


@pytest.fixture
def is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = Uploads.incoming

    def incoming_on_full_disk(uploads: Uploads) -> Incoming:
        file = incoming(uploads)
        file._file.close()
        file._file = FULL.open("wb")
        return file

    monkeypatch.setattr(Uploads, "incoming", incoming_on_full_disk)


@pytest.mark.usefixtures("is_full")
def test_what_the_disk_has_no_room_for_is_refused_and_leaves_nothing(tmp_path: Path):
    small, large = bytes(100), bytes(3 << 20)
    url = f"data:video/mp4;base64,{base64.b64encode(large).decode()}"
    part = {"type": "video_url", "video_url": {"url": url}}
    chat = {"model": MODEL, "messages": [{"role": "user", "content": [part]}]}
    with (
        bare_endpoint(tmp_path) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        refused = [
            web.post("/v1/files", files={"file": small}, data={"purpose": "user_data"}),
            web.post("/v1/chat/completions", json=chat),
            web.post("/v1/streams", json={"source": {"url": url}}),
        ]
    told = [(each.status_code, each.json()["error"]["code"]) for each in refused]
    assert told == [(507, "disk_full")] * len(refused)
    assert "delete files" in refused[0].json()["error"]["message"]
    assert {each.headers["x-should-retry"] for each in refused} == {"false"}
    assert listed(tmp_path) == []


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("step", ["write_text", "replace"])
def test_a_file_whose_facts_find_no_room_is_not_kept_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    clip = make(tmp_path, Clip())
    data = tmp_path / "data"
    uploads = Uploads(data, max_bytes=1 << 20, keep_s=60.0, limits=DecodeLimits())

    async def send() -> None:
        file = uploads.incoming()
        try:
            await file.write(clip.read_bytes())
            await uploads.keep(file, owner="one", filename="a", purpose="user_data")
        finally:
            file.discard()

    monkeypatch.setattr(Path, step, failing(errno.ENOSPC))
    with pytest.raises(StoreFull):
        asyncio.run(send())
    monkeypatch.undo()
    assert listed(data) == []
