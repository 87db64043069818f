"""Files that clients send: bytes that several have sent lie there once."""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from jobs.serve.uploads import Upload, Uploads
from pipeline.config import DecodeLimits
from tests.media_factory import Clip, make

MOMENT_S = 0.2  # that a removal may take where nothing holds it up

pytestmark = pytest.mark.timeout(60)


async def sent(uploads: Uploads, clip: Path, *, owner: str) -> Upload:
    file = uploads.incoming()
    await file.write(clip.read_bytes())
    return await uploads.keep(file, owner=owner, filename="clip.mp4", purpose="user_data")


def test_bytes_that_somebody_sends_are_not_removed_with_anothers_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clip = make(tmp_path, Clip())
    uploads = Uploads(tmp_path / "data", max_bytes=1 << 20, keep_s=60.0, limits=DecodeLimits())
    before = asyncio.run(sent(uploads, clip, owner="one"))
    removing: list[Future[None]] = []
    write_text = Path.write_text
    with ThreadPoolExecutor(1) as beside:

        def remove_and_write(path: Path, *arguments: Any) -> int:
            removing.append(beside.submit(uploads.remove, before))
            wait(removing, MOMENT_S)
            return write_text(path, *arguments)

        monkeypatch.setattr(Path, "write_text", remove_and_write)
        now = asyncio.run(sent(uploads, clip, owner="another"))
        removing[0].result()
    assert uploads.all_of("one") == []
    assert uploads.all_of("another") == [now]
    assert uploads.path(now).read_bytes() == clip.read_bytes()
